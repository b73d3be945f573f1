"""Networks in other runtimes: all of them there, and none that answers something else is timed."""

import pytest
import torch
from torch import Tensor, nn

import sepwise
from sepwise.ops import native
from sepwise.saving import runtimes as module
from sepwise.saving.runtimes import COMPILED, interleaved, runtimes


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()


def pictures() -> Tensor:
    return torch.randn(2, 3, 12, 13, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def installed():
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_runtime_runs(dtype):
    found = runtimes(model(), pictures(), dtype)
    expected = {"eager contiguous", "eager channels_last", "OpenVINO NCHW", "OpenVINO NHWC"}
    assert {*found.calls} == expected | ({"ONNX Runtime"} if dtype == torch.float32 else set())
    assert found.left_out == {}
    for call in found.calls.values():
        call()


@pytest.mark.usefixtures("installed")
def test_layers_of_ours_are_stock_operations_elsewhere():
    layer = sepwise.nn.SeparableConv2d(3, 8, 3, padding=1)
    assert runtimes(nn.Sequential(layer, nn.ReLU()).eval(), pictures()).left_out == {}


@pytest.mark.usefixtures("installed")
def test_a_wrong_answer_is_left_out(monkeypatch):
    true_runtime = module._openvino

    def scaled(*given):
        call, answer = true_runtime(*given)
        return call, lambda: [1.002 * y for y in answer()]

    monkeypatch.setattr(module, "_openvino", scaled)
    found = runtimes(model(), pictures())
    assert {*found.left_out} == {"OpenVINO NCHW", "OpenVINO NHWC"}
    assert "refusing to time OpenVINO NCHW: its output differs" in found.left_out["OpenVINO NCHW"]
    assert not {*found.left_out} & {*found.calls}


def test_what_is_not_installed_is_said(monkeypatch):
    def absent(name, purpose):
        raise sepwise.errors.MissingExtraError(f"{name}: pip install 'sepwise[bench]'")

    monkeypatch.setattr(module, "require", absent)
    found = runtimes(model(), pictures())
    assert {*found.calls} == {"eager contiguous", "eager channels_last"}
    assert found.left_out["ONNX Runtime"] == "onnxruntime: pip install 'sepwise[bench]'"


@pytest.mark.skipif(native.PROBLEM is not None, reason=str(native.PROBLEM))
def test_compiled():
    network, x = model(), pictures()
    found = runtimes(network, x, compiled=True)
    assert COMPILED not in found.left_out, found.left_out[COMPILED]
    answer = found.calls[COMPILED]()
    assert isinstance(answer, Tensor)
    torch.testing.assert_close(answer, network(x), rtol=1e-4, atol=1e-5)


def test_pauses_are_not_timed(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    timings = interleaved({"a": lambda: None, "b": lambda: None}, rounds=3)
    assert {*timings} == {"a", "b"}
    assert max(timing.median_ms for timing in timings.values()) < 5
