"""`sepwise demo`: what it fits on, what it shows, and the whole job in a small setting."""

import json
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch

from sepwise import cli
from sepwise.cli import demo
from sepwise.sources import load_model
from sepwise.zoo import HED

missing = [name for name in ("skimage", "sklearn") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"needs {' and '.join(missing)}")


@pytest.fixture(scope="module")
def prepared():
    """How HED wants its pictures; its weights do not matter here."""
    return load_model("zoo:hed")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "CROPS", 4)
    monkeypatch.setattr(demo, "CROP", 64)
    monkeypatch.setattr(demo, "BATCH", 2)


@pytest.mark.usefixtures("small")
def test_crops_are_the_same_at_every_run(prepared):
    batches = demo.fit_crops(prepared)
    torch.manual_seed(5)
    again = demo.fit_crops(prepared)
    assert [tuple(b.shape) for b in batches] == [(2, 3, 64, 64)] * 2
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
    crops = torch.cat(batches)
    assert not any(torch.equal(crops[i], crops[j]) for i in range(4) for j in range(i))


def test_no_picture_is_shown_that_is_fitted_on():
    fitted = (*demo.SKIMAGE_FIT, *demo.SKLEARN_FIT)
    assert not set(demo.SHOWN) & set(fitted)
    skimage, sklearn = demo._folders()
    shown = {(skimage / name).read_bytes() for name in demo.SHOWN}
    others = {(skimage / n).read_bytes() for n in demo.SKIMAGE_FIT} | {
        (sklearn / n).read_bytes() for n in demo.SKLEARN_FIT
    }
    assert len(shown) == len(demo.SHOWN)
    assert len(others) == len(fitted)
    assert not shown & others


def test_shown_pictures_are_whole_and_named(prepared):
    shown = demo.shown_pictures(prepared)
    assert [name for name, _ in shown] == ["astronaut", "chelsea", "coffee"]
    assert all(x.shape == (1, 3, *prepared.size) for _, x in shown)


@pytest.mark.usefixtures("small")
def test_the_demo_in_a_small_setting(monkeypatch, tmp_path, capsys, prepared):
    """The whole command on HED with few channels: with all of them the fits alone take minutes."""
    asked = []

    def load(*arguments):
        asked.append(arguments)
        monkeypatch.setattr(import_module("sepwise.zoo.hed"), "BLOCKS", ((12, 12), (16, 16), (16, 16), (16,), (16,)))
        torch.manual_seed(0)
        return replace(prepared, model=HED().eval(), size=(64, 80))

    monkeypatch.setattr("sepwise.sources.models.load_model", load)
    monkeypatch.setattr(demo, "SHOWN", demo.SHOWN[:1])
    out = tmp_path / "demo"
    assert cli.main(["demo", "--out", str(out), "--budget", "macs=0.5", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert asked == [("zoo:hed", "bsds500")]
    assert data["networks"]["separable"]["macs"] <= 0.5 * data["networks"]["dense"]["macs"]
    assert data["agreement"]["correlation"] > 0.8
    assert {c["form"] for c in data["plan"].values()} <= {"dense", "spatial", "depthwise"}
    assert (out / "pictures" / "0-difference.png").is_file()
    assert data["fused_latency_ratio"] > 0
    alone = data["alone"][0]
    assert (alone["form"], alone["metric"]) == ("depthwise", "f1")
    assert min(alone["latency_ratio"], alone["fused_latency_ratio"]) > 0
    page = (out / "report.html").read_text()
    assert "HED, an edge detector, made separable" in page
    assert "astronaut" in page
    assert "4 crops of 64×64 from 13 pictures" in page


def test_a_folder_of_other_files_is_not_replaced(tmp_path, monkeypatch, capsys, prepared):
    monkeypatch.setattr("sepwise.sources.models.load_model", lambda *arguments: prepared)
    (tmp_path / "mine").write_text("1")
    assert cli.main(["demo", "--out", str(tmp_path)]) == 1
    assert "so it is not replaced; name another folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
