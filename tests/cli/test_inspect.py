"""`sepwise inspect` end to end: table, JSON, the page with kernels, and the refusals."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from sepwise.cli import main


@pytest.fixture
def inspect(capsys):
    """Run `sepwise inspect ARGUMENTS`; give (exit code, stdout, stderr)."""

    def call(*arguments):
        code = main(["inspect", *arguments])
        return (code, *capsys.readouterr())

    return call


def test_the_table_of_a_trained_network(inspect, shared):
    code, out, err = inspect("zoo:resnet20", "--weights", str(shared / "weights" / "resnet20-cifar10.safetensors"))
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "zoo:resnet20, input 32×32×3"
    assert "16×3×3×3" in out
    assert "separate: depthwise rank 3 keeps" in out or "separate: spatial rank 34 keeps" in out
    assert "misleads at low ranks" in out


def test_json(inspect):
    data = json.loads(inspect("zoo:resnet20", "--size", "16x24", "--json")[1])
    assert data["size"] == [16, 24]
    assert data["total"]["convolutions"] == len(data["layers"]) == 19
    assert data["layers"][0]["output_size"] == [16, 24]
    assert sum(layer["macs_share"] for layer in data["layers"]) == pytest.approx(1, abs=1e-3)
    assert {layer["verdict"] for layer in data["layers"]} <= {"separate", "leave", "doubtful"}


def test_untrained_weights_are_called_so(inspect):
    assert inspect("zoo:resnet20")[1].splitlines()[0] == "zoo:resnet20, input 32×32×3, as built (no --weights)"


def test_the_page_is_one_file_with_kernels(inspect, tmp_path):
    page = tmp_path / "net.html"
    code, out, err = inspect("zoo:resnet20", "--out", str(page))
    text = page.read_text()
    assert (code, err) == (0, "")
    assert out.endswith(f"The page with the kernels is {page}\n")
    assert list(tmp_path.iterdir()) == [page]
    assert "layer1.0.conv1" in text
    assert text.count("data:image/") == 19


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zoo:resnet21"], "resnet21"),
        (["zoo:resnet20", "--size", "32by32"], "--size '32by32': expected height and width in pixels"),
        (["zoo:resnet20", "--size", "0"], "--size '0'"),
        (["zoo:resnet20", "--weights", "missing.safetensors"], "missing.safetensors"),
        (["zoo:resnet20", "--out", "missing/net.html"], "missing does not exist"),
        (["zoo:resnet20", "--out", "."], r"--out . is a folder; name the file"),
        (["torch.nn:CosineSimilarity"], "cannot run on an example of shape"),
    ],
)
def test_refusals_are_one_sentence_and_leave_no_file(inspect, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = inspect(*arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert not list(Path().iterdir())


def test_an_interrupted_page_is_not_left_half_written(inspect, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sepwise.report.build", interrupted)
    code, _, err = inspect("zoo:resnet20", "--out", str(tmp_path / "net.html"))
    assert (code, err) == (130, "interrupted; nothing half-written is left\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra timm")
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100"])
def test_timm_networks(inspect, name):
    data = json.loads(inspect(f"timm:{name}", "--size", "64", "--json")[1])
    assert data["total"]["unsupported"] == {}
    assert len(data["layers"]) == {"resnet18": 20, "mobilenetv2_100": 52}[name]
