"""`sepwise bench`: what it prints and refuses; runtimes that answer wrongly, or are not there, are not timed."""

import json

import pytest
import torch

import sepwise.saving.runtimes as module
from sepwise import cli, zoo
from sepwise.ops import native

pytestmark = pytest.mark.skipif(native.PROBLEM is not None, reason=native.PROBLEM or "")


@pytest.fixture
def bench(capsys):
    """Run `sepwise bench ARGUMENTS`; give (exit code, stdout, stderr without the bar)."""

    def call(*arguments):
        code = cli.main(["bench", *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, "\n".join(line for line in printed.err.splitlines() if "%|" not in line)

    return call


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0)


@pytest.fixture
def wrong(monkeypatch):
    """OpenVINO that answers wrongly, and ONNX Runtime that is a network in PyTorch."""

    def openvino(asked, layout):
        return (lambda: asked.network(asked.x)), (lambda: [asked.network(asked.x) + (0.05 if layout == "NHWC" else 0)])

    monkeypatch.setattr(module, "_openvino", openvino)
    monkeypatch.setattr(module, "_onnxruntime", lambda asked: openvino(asked, "NCHW"))


def test_json(bench, wrong):
    before = torch.get_num_threads()
    options = ("--size", "16", "--batch", 2, "--threads", 1, "--rounds", 3)
    code, out, err = bench("zoo:resnet20", "zoo:resnet20", *options, "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert (told["batch"], told["threads"], told["rounds"], told["dtype"]) == (2, 1, 3, "float32")
    assert torch.get_num_threads() == before
    for one in told["networks"]:
        assert one["sepwise"]["rounds"] == 3
        assert {"eager contiguous", "folded channels_last", "OpenVINO NCHW", "ONNX Runtime"} <= {*one["others"]}
        assert one["ratio"] == one["others"][one["best"]]["ratio"]
        assert one["others"][one["best"]]["median_ms"] == min(row["median_ms"] for row in one["others"].values())
        assert "its output differs by 0.05" in one["left_out"]["OpenVINO NHWC"]
    first, second = (one["ratio"] for one in told["networks"])
    assert told["geometric_mean"] == pytest.approx((first * second) ** 0.5)


def test_text_and_what_is_not_there(bench, monkeypatch):
    def absent(*_):
        raise module.SepwiseError("openvino is needed and is not installed")

    monkeypatch.setattr(module, "_openvino", absent)
    monkeypatch.setattr(module, "_onnxruntime", lambda asked: 1 / 0)
    code, out, _ = bench("zoo:resnet20", "--size", "16", "--rounds", 2, "--dtype", "bfloat16")
    assert code == 0
    assert "zoo:resnet20, 16×16" in out
    assert "OpenVINO NCHW left out: openvino is needed and is not installed" in out
    assert "ONNX Runtime" not in out  # computes no bfloat16
    assert ("sepwise is faster" in out) != ("sepwise is SLOWER" in out)
    _, out, _ = bench("zoo:resnet20", "--size", "16", "--rounds", 2)
    assert "ONNX Runtime left out: it cannot run the network: division by zero" in out


def test_a_network_that_is_refused_does_not_end_the_others(bench, wrong):
    code, out, _ = bench("zoo:resnet19", "zoo:resnet20", "--size", "16", "--rounds", 1)
    assert code == 1
    assert "zoo:resnet19: " in out
    assert "zoo:resnet20, 16×16" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("zoo:resnet20", "--batch", "0"), "--batch 0: give a number, at least 1"),
        (("zoo:resnet20", "--rounds", "0"), "--rounds 0: give a number, at least 1"),
        (("models", "--weights", "a.safetensors"), "--weights a.safetensors belongs to one network, given 7"),
    ],
)
def test_what_cannot_be_timed_is_refused(bench, arguments, sentence):
    code, out, err = bench(*arguments)
    assert (code, out) == (1, "")
    assert sentence in err


def test_every_runtime_that_is_installed_answers_as_the_network():
    for name in ("onnxruntime", "openvino"):
        pytest.importorskip(name)
    network, x = zoo.resnet20().eval(), torch.randn(2, 3, 16, 16)
    found = module.runtimes(network, x)
    assert found.left_out == {}
    assert {"ONNX Runtime", "OpenVINO NCHW", "OpenVINO NHWC"} <= {*found.calls}
