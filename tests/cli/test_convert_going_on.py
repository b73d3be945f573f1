"""`sepwise convert --recover` trains what it fitted; `--resume` goes on from where a conversion was stopped."""

import json

import pytest
from safetensors.torch import load_file

from sepwise import cli
from sepwise.cli import job

pytest.importorskip("lightning_fabric")


def test_recovery_is_measured_told_and_delivered(convert, tmp_path):
    code, out, _ = convert("small_networks:classifier", "--json")
    fitted = load_file(tmp_path / "out" / "model.safetensors")
    assert code == 0
    assert json.loads(out)["recovery"] is None
    more = ("--overwrite", "--recover", "2epochs", "--recover-limit", "6")
    code, out, _ = convert("small_networks:classifier", "--json", *more)
    won = json.loads(out)["recovery"]
    assert code == 0
    assert (won["length"], won["pictures"], won["metric"]) == ("2 epochs on 6 pictures", 6, "top1")
    assert won["after"] == json.loads(out)["agreement"]["top1"]
    assert len(won["held_out_losses"]) > 2
    trained = load_file(tmp_path / "out" / "model.safetensors")
    best = min(loss for _, loss in won["held_out_losses"])
    changed = any(not fitted[name].equal(trained[name]) for name in fitted)
    assert changed == (best < won["held_out_losses"][0][1])
    report = (tmp_path / "out" / "report.html").read_text()
    assert "after training without labels, 2 epochs on 6 pictures" in report
    code, out, _ = convert("small_networks:classifier", *more)
    assert "training without labels, 2 epochs on 6 pictures: top1 " in out


@pytest.mark.parametrize("text", ["20", "0min", "3 hours", "epochs", "-1epochs"])
def test_a_length_that_is_none(refused, text):
    assert refused("small_networks:classifier", f"--recover={text}").startswith(
        f"--recover {text!r}: expected a length"
    )


def stopped_at(stage, at, monkeypatch):
    """Ctrl-C when so much of a stage is done."""
    true_call = job.Progress.__call__

    def call(self, name, done, total):
        if (name, done) == (stage, at):
            raise KeyboardInterrupt
        true_call(self, name, done, total)

    monkeypatch.setattr(job.Progress, "__call__", call)


def words(pictures, out, *more):
    given = ["small_networks:classifier", "--images", pictures, "--out", out, "--budget", "macs=0.5"]
    return ["convert", *map(str, given), "--forms", "depthwise", "--recover", "2epochs", *map(str, more)]


@pytest.mark.parametrize(("stage", "at"), [("survey", 2), ("fit", 1), ("recover", 500), ("measure", 1)])
def test_a_conversion_stopped_anywhere_goes_on_to_the_same_end(pictures, tmp_path, monkeypatch, capsys, stage, at):
    monkeypatch.setattr("sepwise.conversion.recovery.composing_pays", lambda *_: False)  # a timing would decide
    assert cli.main(words(pictures, tmp_path / "whole")) == 0
    with monkeypatch.context() as patch:
        stopped_at(stage, at, patch)
        assert cli.main(words(pictures, tmp_path / "out")) == 130
    assert "out.unfinished; --resume goes on from it" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != pictures.name) == ["out.unfinished", "whole"]
    surveyed = []
    true_survey = job.survey
    monkeypatch.setattr(job, "survey", lambda *a, **k: surveyed.append(k["kept"]) or true_survey(*a, **k))
    assert cli.main(words(pictures, tmp_path / "out", "--resume")) == 0
    assert len(surveyed) == 1
    assert not (tmp_path / "out.unfinished").exists()
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "out"))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)
    assert (tmp_path / "whole" / "plan.json").read_bytes() == (tmp_path / "out" / "plan.json").read_bytes()


def test_another_budget_goes_on_from_the_survey_alone(pictures, tmp_path, monkeypatch, capsys):
    assert cli.main(words(pictures, tmp_path / "out", "--budget", "macs=0.001")) == 1
    assert "the survey is kept, so that another --budget with --resume needs none" in capsys.readouterr().err
    fits = []
    from sys import modules

    layers = modules["sepwise.conversion.survey"]
    true_fit = layers.LayerFit
    monkeypatch.setattr(layers, "LayerFit", lambda *a: fits.append(a) or true_fit(*a))
    assert cli.main(words(pictures, tmp_path / "out", "--resume")) == 0
    assert fits == []


def test_going_on_with_other_pictures_is_refused_and_a_strangers_folder_is_left_alone(pictures, tmp_path, capsys):
    assert cli.main(words(pictures, tmp_path / "out", "--budget", "macs=0.001")) == 1
    capsys.readouterr()
    assert cli.main(words(pictures, tmp_path / "out", "--resume", "--seed", 1)) == 1
    assert "left from a conversion of other weights or pictures" in capsys.readouterr().err
    (tmp_path / "mine.unfinished").mkdir()
    (tmp_path / "mine.unfinished" / "thesis.txt").write_text("years of work")
    assert cli.main(words(pictures, tmp_path / "mine")) == 1
    assert "is in the way and no unfinished conversion" in capsys.readouterr().err
    assert (tmp_path / "mine.unfinished" / "thesis.txt").read_text() == "years of work"
