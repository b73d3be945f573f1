"""`sepwise convert` end to end on small networks: what it delivers, what it honours, what it withstands."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import small_networks
import torch
from baits import Touch

from sepwise import Plan, cli
from sepwise.cli import job
from sepwise.conversion import rebuild
from sepwise.errors import ModelError
from sepwise.sources import load_model, prepare, read_weights, save_weights
from sepwise.sources.pictures import Picture

Image = pytest.importorskip("PIL.Image")

FILES = ["model.pt2", "model.safetensors", "plan.json", "records.jsonl", "report.html"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """24 smooth pictures of 30 x 40 pixels."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(24):
        small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((40, 30), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def convert(pictures, tmp_path, capsys):
    """Run `sepwise convert MODEL ...` with --out tmp_path/out; give (exit code, stdout, last line of stderr).

    Seldom-changed arguments have defaults; None leaves an argument out.
    """

    def call(model, *more, images=pictures, budget="macs=0.5", out=tmp_path / "out", forms="depthwise"):
        given = [("--images", images), ("--budget", budget), ("--out", out), ("--forms", forms)]
        words = [str(word) for name, value in given if value is not None for word in (name, value)]
        code = cli.main(["convert", model, *words, *map(str, more)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        lines = [line for line in re.split("[\r\n]", printed.err) if line.strip() and "%|" not in line]
        assert len(lines) <= 1 or code == 0, f"one sentence was expected: {lines}"
        return code, printed.out, (lines or [""])[-1]

    return call


@pytest.fixture
def refused(convert, tmp_path):
    """Run `sepwise convert`, expect a refusal that leaves nothing, and give its sentence."""

    def call(*arguments, code=1, **given):
        found, out, sentence = convert(*arguments, **given)
        assert (found, out) == (code, "")
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".*"))
        return sentence

    return call


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def records_of(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


# What it delivers


@pytest.mark.parametrize("model", ["classifier", "edges"])
@torch.no_grad()
def test_the_whole_job(convert, tmp_path, pictures, model):
    code, out, _ = convert(f"small_networks:{model}", "--json", forms=None)
    data = json.loads(out)
    assert code == 0
    assert set(data) >= {"networks", "latency_ratio", "agreement", "plan", "curve", "files"}
    assert data["networks"]["separable"]["macs"] <= 0.5 * data["networks"]["dense"]["macs"]
    assert data["latency_ratio"] > 0
    assert data["fused_latency_ratio"] > 0
    forms = [choice["form"] for choice in data["plan"].values() if choice["form"] != "dense"]
    pairs = sum(form in ("depthwise", "cp") for form in forms)
    assert (data["fused_latency"]["pairs"], data["fused_latency"]["left"]) == (pairs, len(forms) - pairs)
    assert data["agreement"]["relative_error"] < 0.3
    assert {point["kind"] for point in data["curve"]} == {"this conversion", "other budget", "data-free"}
    folder = tmp_path / "out"
    assert set(names(folder)) == {*FILES, "pictures", "kernels"}
    assert sorted(data["files"]) == FILES
    page = (folder / "report.html").read_text()
    assert "data:image/" in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page), "the report must need no other file"
    dense = getattr(small_networks, model)()
    plan = Plan.load(folder / "plan.json")
    assert set(plan.converted) == {n for n, choice in data["plan"].items() if choice["form"] != "dense"} != set()
    rebuilt = rebuild(dense, plan, read_weights(folder / "model.safetensors"))
    program = load_model(str(folder / "model.pt2"))
    x = torch.randn(3, 3, *program.size)
    torch.testing.assert_close(program.model(x), rebuilt(x), rtol=1e-4, atol=1e-4)
    assert float((rebuilt(x) - dense.eval()(x)).abs().max()) > 1e-4, "the program must not be the dense network"


def test_a_network_that_cannot_be_fused_is_converted_and_says_why(convert, monkeypatch, tmp_path):
    def refuse(*arguments):
        raise ModelError("fuse: the fused network would answer differently")

    monkeypatch.setattr(import_module("sepwise.cli.latency"), "fuse", refuse)
    code, out, _ = convert("small_networks:classifier")
    assert code == 0
    assert "latency, fused        not measured: fuse: the fused network would answer differently\n" in out
    told = [r for r in records_of(tmp_path / "out") if r["what"] == "network.fused_latency_ratio"]
    assert [(r["value"], r["about"]["why"]) for r in told] == [
        (None, "fuse: the fused network would answer differently")
    ]
    assert "Latency, fused" not in (tmp_path / "out" / "report.html").read_text()


def test_the_table_for_people(convert, tmp_path):
    code, out, _ = convert("small_networks:classifier")
    lines = out.splitlines()
    assert code == 0
    start = next(i for i, line in enumerate(lines) if line.split() == ["dense", "separable"])
    assert [line[:20].strip() for line in lines[start + 1 : start + 7]] == [
        "parameters",
        "MACs at 24x24",
        "weight bytes",
        "fastest stock form",
        "latency, each in it",
        "latency, fused",
    ]
    for name in ("dense", "separable"):
        end = lines[start].index(name) + len(name)
        assert all(re.search(r"\S ", line[end - 1 : end + 1] + " ") for line in lines[start + 1 : start + 5])
    assert re.search(r"latency, each in it +\d+\.\d\dx (faster|SLOWER) \(median of 10 interleaved rounds, ", out)
    assert re.search(
        r"latency, fused +\d+\.\d\dx (?:faster|SLOWER) \(([123]) of \1 separable layers as one operation each\)$",
        out,
        re.M,
    )
    assert "agreement with the dense network on 6 other pictures of " in out
    assert lines[-1].startswith(f"report: {tmp_path / 'out' / 'report.html'}")


def test_a_plan_edited_by_hand_is_carried_out(convert, tmp_path):
    assert convert("small_networks:classifier", forms="spatial")[0] == 0
    path = tmp_path / "plan.json"
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    plan["layers"]["third"] |= {"form": "spatial", "rank": 7}
    path.write_text(json.dumps(plan))
    code, out, _ = convert("small_networks:classifier", "--plan", path, "--overwrite", "--json", budget=None)
    assert code == 0
    assert (json.loads(out)["plan"]["third"]["form"], json.loads(out)["plan"]["third"]["rank"]) == ("spatial", 7)
    state = read_weights(tmp_path / "out" / "model.safetensors")
    assert [t.shape for n, t in state.items() if n.startswith("third.") and t.dim() == 4 and t.shape[0] == 7]


@pytest.mark.parametrize("unit", ["macs", "parameters"])
def test_budgets_are_kept(convert, unit):
    networks = json.loads(convert("small_networks:classifier", "--json", budget=f"{unit}=0.6")[1])["networks"]
    assert networks["separable"][unit] <= 0.6 * networks["dense"][unit]


@torch.no_grad()
def test_size_mean_and_deviation_are_honoured(convert, tmp_path, pictures, monkeypatch):
    seen = []
    monkeypatch.setattr(cli.import_module("sepwise.cli.job"), "survey", _spy(job.survey, seen))
    code, _, _ = convert("small_networks:edges", "--size", "16x20", "--mean", ".1,.2,.3", "--std", "1,2,3")
    assert code == 0
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["size"] == [16, 20]
    batches = torch.cat(list(seen[0][1]))
    every = [
        prepare(Picture(p.name, p.read_bytes).decode(), (16, 20), (0.1, 0.2, 0.3), (1, 2, 3))
        for p in sorted(pictures.iterdir())
    ]
    assert len(batches) == 18
    assert all(any(torch.equal(x, y) for y in every) for x in batches)


def _spy(function, calls):
    def run(*arguments, **rest):
        calls.append(arguments)
        return function(*arguments, **rest)

    return run


def test_batch_normalization_is_folded_or_kept(convert, tmp_path):
    for more, wanted in (([], "fold"), (["--keep-batch-norm", "--overwrite"], "keep")):
        assert convert("small_networks:classifier", *more)[0] == 0
        assert Plan.load(tmp_path / "out" / "plan.json").batch_norm == wanted
        held = any("running_mean" in name for name in read_weights(tmp_path / "out" / "model.safetensors"))
        assert held == (wanted == "keep")


def test_only_the_forms_named_are_used(convert):
    plan = json.loads(convert("small_networks:classifier", "--json", forms="blueprint,spatial")[1])["plan"]
    assert {choice["form"] for choice in plan.values()} <= {"dense", "blueprint", "spatial"}


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
def test_pictures_from_a_parquet_table(convert, tmp_path, pictures):
    import pyarrow
    import pyarrow.parquet

    rows = [{"bytes": p.read_bytes(), "path": p.name} for p in sorted(pictures.iterdir())]
    pyarrow.parquet.write_table(pyarrow.table({"img": rows}), tmp_path / "pictures.parquet")
    code, out, _ = convert("small_networks:edges", images=tmp_path / "pictures.parquet")
    assert code == 0
    assert "6 other pictures of" in out


def test_a_trained_network_on_real_pictures(convert, shared):
    code, out, _ = convert(
        "zoo:resnet20",
        *("--weights", shared / "weights" / "resnet20-cifar10.safetensors", "--json"),
        *("--limit", 64, "--held-out", 50),
        images=next((shared / "data" / "cifar10").rglob("*test*.parquet")),
        budget="macs=0.7",
    )
    assert code == 0
    assert json.loads(out)["agreement"]["top1"] >= 0.8


def test_a_trained_network_from_a_factory(convert, shared, tmp_path):
    code, _, _ = convert(
        "sepwise.zoo:resnet20",
        *("--weights", shared / "weights" / "resnet20-cifar10.safetensors"),
        *("--limit", 16, "--size", 32, "--iterations", 0),
        budget="parameters=0.8",
    )
    assert code == 0
    assert records_of(tmp_path / "out")[0]["value"]["model"] == "sepwise.zoo:resnet20"


@pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_network_of_timm(convert):
    code, out, _ = convert("timm:test_resnet", "--size", 64, "--iterations", 0, "--json", budget="macs=0.7")
    assert code == 0
    assert json.loads(out)["networks"]["separable"]["macs"] > 0


# What it refuses


def test_a_model_that_cannot_be_followed(refused):
    sentence = refused("small_networks:untraceable", "--size", 24)
    assert sentence.startswith("Untraceable cannot be followed: symbolically, ")
    assert refused("small_networks:no_convolution") == "Sequential has no convolution to convert"


def test_a_layer_that_cannot_be_converted_is_left_dense_with_the_reason(convert):
    code, out, _ = convert("small_networks:shared", "--size", 24, "--json", budget="macs=0.7")
    twice = json.loads(out)["plan"]["twice"]
    assert (code, twice["form"]) == (0, "dense")
    assert "called 2 times" in twice["why"]


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


# Where it writes


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
    (out / "note.txt").write_text("mine")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    code, _, sentence = convert("small_networks:edges")
    assert code == 1
    assert sentence == f"{out} is not empty; name another folder, or pass --overwrite to replace it"
    assert convert("small_networks:edges", "--overwrite", budget="macs=0.001")[0] == 1
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert convert("small_networks:edges", "--overwrite")[0] == 0
    assert set(names(out)) == {*FILES, "pictures", "kernels"}
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


# Ctrl-C


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
    assert names(tmp_path) == (["out"] if stands else [])
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
    assert not list(Path(tmp_path).iterdir())
