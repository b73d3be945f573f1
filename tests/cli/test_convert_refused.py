"""What `sepwise convert` withstands: models, weights, pictures and arguments of no use, taken places, Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_networks
import torch
from baits import Touch

from sepwise import cli
from sepwise.cli import job
from sepwise.sources import save_weights


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_model_that_cannot_be_followed(refused):
    sentence = refused("small_networks:untraceable", "--size", 24)
    assert sentence.startswith("Untraceable cannot be followed: symbolically, ")
    assert refused("small_networks:no_convolution") == "Sequential has no convolution to convert"


def test_a_plan_for_a_layer_that_cannot_be_converted(refused, tmp_path):
    choice = {"form": "depthwise", "rank": 1, "why": "", "macs_before": 1, "macs_after": 1}
    choice |= {"parameters_before": 1, "parameters_after": 1}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"format": "sepwise-plan/1", "layers": {"twice": choice}}))
    sentence = refused("small_networks:shared", "--size", 24, "--plan", path, budget=None)
    assert "the plan converts twice, which cannot be converted" in sentence


def test_weights_that_do_not_fit(pictures, tmp_path, capsys):
    path = tmp_path / "edges.safetensors"
    save_weights(small_networks.edges(), path)
    words = ["small_networks:classifier", "--weights", path, "--images", pictures, "--budget", "macs=1"]
    assert cli.main(["convert", *map(str, words), "--out", str(tmp_path / "out")]) == 1
    first, *details = capsys.readouterr().err.splitlines()
    assert first == f"{path} does not fit the model Classifier"
    assert [line.split(":")[0].strip() for line in details] == ["16 missing", "6 unexpected"]
    assert names(tmp_path) == ["edges.safetensors"]


def test_weights_with_nan(refused, tmp_path):
    model = small_networks.edges()
    with torch.no_grad():
        model.get_parameter("body.2.weight")[0, 0] = float("nan")
    save_weights(model, tmp_path / "nan.safetensors")
    sentence = refused("small_networks:edges", "--weights", tmp_path / "nan.safetensors")
    assert sentence.endswith("nan.safetensors holds NaN or Inf in body.2.weight (1 of 6 tensors)")


def test_weights_that_would_run_code(refused, tmp_path):
    bait = tmp_path / "weights.pth"
    torch.save({"a": Touch(tmp_path / "touched")}, bait)
    before = bait.read_bytes()
    sentence = refused("small_networks:edges", "--weights", bait)
    assert "weights.pth is refused: loading it would execute code" in sentence
    assert not (tmp_path / "touched").exists()
    assert bait.read_bytes() == before


@pytest.fixture
def with_a_broken_one(pictures, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in pictures.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "05.png").write_bytes(b"no picture")
    return folder


def test_a_broken_picture_is_refused(refused, with_a_broken_one):
    sentence = refused("small_networks:edges", images=with_a_broken_one)
    assert sentence.endswith("it is no picture; remove it, or pass --skip-broken to go on without it")
    assert str(with_a_broken_one / "05.png") in sentence


def test_a_broken_picture_is_skipped_and_reported(convert, with_a_broken_one):
    code, out, _ = convert("small_networks:edges", "--skip-broken", images=with_a_broken_one)
    assert code == 0
    broken = with_a_broken_one / "05.png"
    assert out.splitlines()[-1] == f"1 picture was left out: {broken} cannot be read: it is no picture"
    data = json.loads(
        convert("small_networks:edges", "--skip-broken", "--overwrite", "--json", images=broken.parent)[1]
    )
    assert len(data["skipped"]) == 1


def test_a_budget_that_cannot_be_met_says_the_best_that_can(refused, convert):
    sentence = refused("small_networks:edges", budget="macs=0.001")
    found = re.match(r"the budget macs=0\.001 cannot be met: these forms reach (0\.\d+) at best", sentence)
    assert found, sentence
    best = float(found[1]) + 0.0006  # printed to three digits
    assert convert("small_networks:edges", budget=f"macs={best}")[0] == 0


@pytest.mark.parametrize(
    ("more", "given", "sentence"),
    [
        ([], {"budget": None}, "give a budget, such as --budget macs=0.25, or a plan"),
        ([], {"budget": "macs"}, "--budget 'macs': expected UNIT=FRACTION, such as macs=0.25"),
        ([], {"budget": "watts=0.5"}, "budget 'watts': expected one of macs, parameters"),
        (["--minimise", "watts"], {"budget": "agreement=0.9"}, "--minimise watts: expected one of macs, parameters"),
        ([], {"budget": "macs=nan"}, "budget macs=nan: expected a fraction of the dense network"),
        ([], {"forms": "spatial,winograd"}, "--forms: there is no form 'winograd'; the forms are depthwise, "),
        ([], {"images": "nowhere"}, "there is no nowhere; give a folder of pictures or a parquet file"),
        (["--limit", 0], {}, "--limit 0: expected an integer, at least 1"),
        (["--held-out", 0], {}, "--held-out 0: expected an integer, at least 1"),
        (["--held-out", 24], {}, "24 pictures held out of 24: at least one must be left to fit on"),
        (["--iterations", -1], {}, "--iterations -1: expected an integer, at least 0"),
        (["--mean", "0,0"], {}, "--mean '0,0': expected 3 finite numbers"),
        (["--mean", "nan,0,0"], {}, "--mean 'nan,0,0': expected 3 finite numbers"),
        (["--std", "1,0,1"], {}, "--std '1,0,1': expected 3 finite numbers above 0"),
        (["--size", "big"], {}, "--size 'big': expected height and width"),
        (["--plan", "nowhere.json"], {}, "nowhere.json cannot be read as a plan"),
    ],
)
def test_arguments_that_make_no_sense(refused, more, given, sentence):
    assert refused("small_networks:edges", *more, **given).startswith(sentence)


def test_errors_as_json(convert, tmp_path):
    code, out, sentence = convert("small_networks:edges", "--json", budget="macs=2")
    assert code == 1
    assert json.loads(out) == {"error": {"type": "BudgetError", "message": sentence}}


def test_a_place_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert refused("small_networks:edges", out=tmp_path / "file").endswith(
        "file is a file; the results need a folder of their own"
    )
    assert refused("small_networks:edges", out=tmp_path / "file" / "out").endswith("nothing can be written below it")
    assert "cannot be written: " in refused("small_networks:edges", out="/proc/sepwise")
    assert (tmp_path / "file").read_text() == "mine"


def test_earlier_results_are_kept_or_replaced_whole(convert, tmp_path):
    out = tmp_path / "out"
    assert convert("small_networks:edges")[0] == 0
    results = names(out)
    (out / "note.txt").write_text("mine")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    code, _, sentence = convert("small_networks:edges")
    assert code == 1
    assert sentence == f"{out} is not empty; name another folder, or pass --overwrite to replace it"
    assert convert("small_networks:edges", "--overwrite", budget="macs=0.001")[0] == 1
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert convert("small_networks:edges", "--overwrite")[0] == 0
    assert names(out) == results
    assert names(tmp_path) == ["out"]


def test_only_results_are_replaced(convert, tmp_path, pictures):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    code, _, sentence = convert("small_networks:edges", "--overwrite")
    assert code == 1
    assert "no earlier result of sepwise (records.jsonl), so it is not replaced" in sentence
    code, _, sentence = convert("small_networks:edges", "--overwrite", out=pictures.parent)
    assert code == 1
    assert f"{pictures} lies in the folder {pictures.parent}, which would be replaced" in sentence
    assert names(out) == ["thesis.tex"]


@pytest.mark.parametrize("stands", [False, True], ids=["new folder", "earlier results"])
@pytest.mark.parametrize("moment", ["survey", "convert", "export", "latency", "save_program", "report.build"])
def test_interrupted(convert, tmp_path, monkeypatch, pictures, moment, stands):
    out = tmp_path / "out"
    if stands:
        out.mkdir()
        (out / "records.jsonl").write_text("earlier")
    user = {p: p.read_bytes() for p in pictures.iterdir()}
    owner, name = (job.report, "build") if moment == "report.build" else (job, moment)
    original = getattr(owner, name)

    def interrupted(*arguments, **rest):
        original(*arguments, **rest)  # at the end of the step, when its files are there
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupted)
    code, printed, sentence = convert("small_networks:edges", "--overwrite", "--iterations", 0)
    assert (code, printed, sentence) == (130, "", "interrupted; nothing half-written is left")
    assert names(tmp_path) == (["out"] if stands else []) + ["out.unfinished"]
    assert not stands or (out / "records.jsonl").read_text() == "earlier"
    assert {p: p.read_bytes() for p in pictures.iterdir()} == user


def test_interrupted_by_a_signal(tmp_path, pictures):
    words = ["convert", "zoo:resnet110", "--images", pictures, "--budget", "macs=0.5", "--out", tmp_path / "out"]
    # A shell's background jobs are born deaf to interrupts.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{listen}; import sys; from sepwise.cli import main; sys.exit(main())"
    running = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert running.stderr is not None
    first = os.read(running.stderr.fileno(), 64)  # the first progress bar: the survey has begun
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    text = (first + err).decode()
    assert running.returncode == 130, text
    assert out == b""
    assert "Traceback" not in text
    assert text.endswith("\ninterrupted; nothing half-written is left\n")
    assert {path.name for path in Path(tmp_path).iterdir()} <= {"out.unfinished"}
