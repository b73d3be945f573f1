"""Whole networks in other runtimes: all of them there, and none that answers something else is timed."""

import pytest
import torch
from torch import nn

from bench import whole
from sepwise.errors import SepwiseError


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()


@pytest.fixture(autouse=True)
def installed():
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_runtime_runs(dtype):
    calls = whole.runtimes(model(), torch.randn(1, 3, 12, 12), 1, dtype)
    expected = {"eager contiguous", "eager channels_last", "openvino NCHW", "openvino NHWC"}
    assert set(calls) == expected | ({"onnxruntime"} if dtype == "float32" else set())
    for call in calls.values():
        call()


def test_a_wrong_answer_is_refused(monkeypatch):
    true_runtime = whole._openvino

    def scaled(network, *rest):
        call, answer = true_runtime(network, *rest)
        return call, lambda: [1.002 * y for y in answer()]

    monkeypatch.setattr(whole, "_openvino", scaled)
    with pytest.raises(SepwiseError, match="refusing to time the runtime 'openvino NCHW'"):
        whole.runtimes(model(), torch.randn(1, 3, 12, 12), 1)
