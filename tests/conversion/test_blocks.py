"""What is computed along with a depthwise-pointwise chain, and what must not be."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

from importlib.util import find_spec

import pytest
import torch
from chains import Block, assert_same, layers_of, pictures
from plain_networks import settle
from torch import Tensor, nn

from sepwise.conversion import fuse
from sepwise.errors import ModelError
from sepwise.nn import FusedBlock
from sepwise.sources.models import load_model

PAIR = "depthwise 3x3, pointwise 4 to 4"


class Joined(nn.Module):
    """x, a pointwise and a separable step of it, joined in some way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.stem, self.narrow = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.depthwise, self.pointwise = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 1)
        self.row = nn.Parameter(torch.randn(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).tanh()
        y = self.pointwise(self.depthwise(x))
        match self.how:
            case "a shortcut":
                return (x + y).relu().tanh()
            case "the other way round":
                return torch.add(y, x).tanh()
            case "in place":
                y += x
                return y.tanh()
            case "two branches":
                return (self.narrow(x) + y).tanh()
            case "another size":
                return (y + x.mean((2, 3), keepdim=True)).tanh()
            case "a parameter":
                return (y + self.row).tanh()
            case "a number":
                return (y + 1.0).tanh()
            case "weighted":
                return torch.add(y, x, alpha=2).tanh()
            case "itself":
                return (y + y).tanh()
            case "read twice":
                return (y + x).tanh() + y
            case "after an activation":
                return (y.relu() + x).tanh()
            case _:
                return (x - y).tanh()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("a shortcut", f"{PAIR}, add, relu"),
        ("the other way round", f"{PAIR}, add"),
        ("in place", f"{PAIR}, add"),
        ("two branches", f"{PAIR}, add"),
        ("another size", PAIR),
        ("a parameter", PAIR),
        ("a number", PAIR),
        ("weighted", PAIR),
        ("itself", PAIR),
        ("read twice", PAIR),
        ("after an activation", f"{PAIR}, relu"),
        ("a difference", PAIR),
    ],
)
def test_sums_with_a_value_of_the_same_size_are_taken_in(how: str, says: str):
    model = settle(Joined(how)).double()
    fused = fuse(model, pictures())
    assert fused.report.fused == {"depthwise": says}
    assert fused.report.pointwise == ({"narrow": "pointwise 4 to 4"} if how == "two branches" else {})
    assert_same(fused, model, pictures())
    assert_same(fused, model, pictures(n=1, size=(8, 7)))


def test_only_what_nothing_else_reads_is_expanded():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.stem = nn.Conv2d(4, 12, 1), nn.Conv2d(3, 4, 3)
            self.depthwise, self.pointwise = nn.Conv2d(12, 12, 3, groups=12), nn.Conv2d(12, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.wide(self.stem(x).tanh()).relu()
            return self.pointwise(self.depthwise(x)).tanh() + x.mean()

    model = settle(Twice()).double()
    fused = fuse(model, pictures())
    assert fused.report.fused == {"depthwise": "depthwise 3x3, pointwise 12 to 4"}
    assert fused.report.pointwise == {"wide": "pointwise 4 to 12, relu"}
    assert_same(fused, model, pictures())


@pytest.mark.parametrize("kind", ["stride", "padding", "groups", "a kernel", "one dimension", "hooked"])
def test_what_is_no_plain_pointwise_convolution_stays(kind: str):
    options = {"stride": {"stride": 2}, "padding": {"padding": 1}, "groups": {"groups": 2}}.get(kind, {})
    axes = 1 if kind == "one dimension" else 2
    conv = {1: nn.Conv1d, 2: nn.Conv2d}[axes](4, 4, 3 if kind == "a kernel" else 1, **options)
    if kind == "hooked":
        conv.register_forward_hook(lambda module, inputs, output: output + 1)
    model = nn.Sequential(conv, nn.ReLU(), nn.Tanh()).double().eval()
    x = pictures(4, size=(9,) * axes)
    fused = fuse(model, x)
    assert fused.report.pointwise == {}
    assert not layers_of(fused, FusedBlock)
    assert_same(fused, model, x)


def test_weights_that_are_no_numbers_are_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
    with torch.no_grad():
        model[0].weight[0] = float("nan")
    with pytest.raises(ModelError, match="holds NaN or Inf"):
        fuse(model, pictures().float())


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
def test_the_blocks_of_mobile_networks_are_one_operation_each():
    loaded = load_model("timm:mobilenetv2_050")
    model, x = settle(loaded.model), torch.randn(1, 3, 64, 64)
    fused = fuse(model, x)
    words = list(fused.report.fused.values())
    assert len(words) == 17
    assert sum(text.startswith("expand ") for text in words) == 16
    assert sum(text.endswith(", add") for text in words) == 10
    assert list(fused.report.pointwise) == ["conv_head"]
    kinds = {type(module).__name__ for module in fused.network.modules() if not list(module.children())}
    assert "BatchNorm2d" not in kinds
    assert_same(fused, model, x, 1e-4)


def test_a_network_of_blocks_runs_in_bfloat16():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block(), Block())).bfloat16()
    x = pictures().bfloat16()
    fused = fuse(model, x)
    assert fused(x).dtype is torch.bfloat16
    assert len(fused.report.fused) == 2
