"""What is computed along with a depthwise-pointwise chain, and what must not be."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

import time
from importlib.util import find_spec

import pytest
import torch
from chains import Block, assert_same, layers_of, pictures
from plain_networks import settle
from torch import Tensor, nn

from sepwise.errors import ModelError
from sepwise.fusion import fuse, timed
from sepwise.fusion.timed import _ratio as by_the_clock  # before the fixture replaces it
from sepwise.nn import FusedBlock
from sepwise.ops import native
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
    narrow = {"narrow": "pointwise 4 to 4"} if how == "two branches" else {}
    assert fused.report.alone == {"stem": "dense 3x3, 3 to 4", **narrow}
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
    assert fused.report.alone == {"stem": "dense 3x3, 3 to 4", "wide": "pointwise 4 to 12, relu"}
    assert_same(fused, model, pictures())


@pytest.mark.parametrize(
    ("conv", "says"),
    [
        (nn.Conv2d(4, 6, 1), "pointwise 4 to 6, relu"),
        (nn.Conv2d(4, 6, 1, stride=2), "dense 1x1 stride 2x2, 4 to 6, relu"),
        (nn.Conv2d(4, 6, 1, padding=1, bias=False), "dense 1x1, 4 to 6, relu"),
        (nn.Conv2d(4, 6, (3, 5), padding=(0, 2), dilation=(1, 2)), "dense 3x5, 4 to 6, relu"),
        (nn.Conv2d(4, 6, 3, padding="same"), "dense 3x3, 4 to 6, relu"),
    ],
    ids=str,
)
def test_lone_convolutions_take_in_their_activation(conv: nn.Conv2d, says: str):
    model = nn.Sequential(conv, nn.ReLU(), nn.Tanh()).double().eval()
    fused = fuse(model, pictures(4))
    assert fused.report.alone == {"0": says}
    assert_same(fused, model, pictures(4))
    assert_same(fuse(model.float(), pictures(4).float()), model, pictures(4, n=3).float(), 1e-5)


@pytest.mark.parametrize("kind", ["groups", "one dimension", "hooked", "reflected"])
def test_what_no_kernel_of_ours_computes_stays(kind: str):
    axes = 1 if kind == "one dimension" else 2
    options = {"groups": {"groups": 2}, "reflected": {"padding": 1, "padding_mode": "reflect"}}.get(kind, {})
    conv = {1: nn.Conv1d, 2: nn.Conv2d}[axes](4, 4, 3, **options)
    if kind == "hooked":
        conv.register_forward_hook(lambda module, inputs, output: output + 1)
    model = nn.Sequential(conv, nn.ReLU(), nn.Tanh()).double().eval()
    x = pictures(4, size=(9,) * axes)
    fused = fuse(model, x)
    assert fused.report.alone == {}
    assert not layers_of(fused, FusedBlock)
    assert_same(fused, model, x)


def test_what_pytorch_computes_faster_is_left_to_it(monkeypatch):
    monkeypatch.setattr("sepwise.fusion.timed._ratio", lambda layer, inputs: 2.0 if layer.geometry else 0.5)
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Tanh(), Block()))
    fused = fuse(model, pictures().float())
    assert fused.report.slower == {"0": 2.0}
    assert list(fused.report.alone) == ["2"]
    assert len(fused.report.fused) == 1  # a chain is no question of the clock
    assert [fused.network.get_submodule(name).stock for name in ("0", "2")] == [True, False]
    monkeypatch.setattr("sepwise.fusion.timed._ratio", lambda layer, inputs: 0.5)
    other = fuse(model, pictures().float())
    assert other.report.slower == {}
    other.load_state_dict(fused.state_dict())  # on whatever machine it was made
    assert_same(fused, other, pictures().float(), 1e-5)
    assert "left to PyTorch, which is faster there: 0" in str(fused.report)


@pytest.mark.skipif(native.PROBLEM is not None, reason=native.PROBLEM or "")
@pytest.mark.parametrize("slow", ["fused_block", "stock_operations"])
def test_the_clock_tells_which_way_is_slower(monkeypatch, slow: str):
    way = getattr(timed, slow)

    def delayed(*arguments, **options):
        time.sleep(0.005)
        return way(*arguments, **options)

    monkeypatch.setattr(timed, slow, delayed)
    layer = FusedBlock({"pointwise": torch.randn(4, 3, 1, 1)}, adds=True)
    found = by_the_clock(layer, [(1, 3, 5, 5), (1, 4, 5, 5)])
    assert found > 2 if slow == "fused_block" else found < 0.5


class Same(nn.Conv2d):
    """Pads by the size of its input, as timm's Conv2dSame does."""

    odd = 1  # where the odd pixel goes: 1 below and right

    def forward(self, x: Tensor) -> Tensor:
        flat: list[int] = []
        for n, k, s in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            flat += [(total + 1 - self.odd) // 2, (total + self.odd) // 2]
        return nn.functional.conv2d(nn.functional.pad(x, flat), self.weight, self.bias, self.stride, 0, 1, self.groups)


class Above(Same):
    odd = 0


@pytest.mark.parametrize("kind", [Same, Above])
def test_a_class_that_pads_by_the_size_of_its_input_is_known_by_what_it_does(kind: type[Same]):
    stem, depthwise = kind(3, 6, 3, 2, bias=False), kind(6, 6, 5, 2, groups=6, bias=False)
    parts = [
        stem,
        nn.BatchNorm2d(6),
        nn.ReLU(),
        depthwise,
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.Conv2d(6, 4, 1),
        nn.Tanh(),
    ]
    model = settle(nn.Sequential(*parts)).double()
    fused = fuse(model, pictures(size=(21, 24)))
    if kind is Above:
        assert "computes something of its own" in fused.report.left["3"]
        assert fused.report.alone == {"6": "pointwise 6 to 4"}
    else:
        assert fused.report.fused == {"3": "depthwise 5x5 stride 2x2, relu6, pointwise 6 to 4"}
        assert fused.report.alone == {"0": "dense 3x3 stride 2x2, 3 to 6, relu"}
        assert fused.report.norms == 2
    for size in ((21, 24), (22, 23), (17, 18)):
        assert_same(fused, model, pictures(size=size))


def test_such_a_class_called_twice_or_hooked_stays():
    conv = Same(4, 4, 3, 2, groups=4)
    model = nn.Sequential(conv, conv, nn.Conv2d(4, 3, 1), nn.Tanh()).double().eval()
    assert fuse(model, pictures(4)).report.fused == {}
    hooked = Same(4, 4, 3, 2, groups=4)
    hooked.register_forward_hook(lambda module, inputs, output: output.exp())
    model = nn.Sequential(hooked, nn.Conv2d(4, 3, 1), nn.Tanh()).double().eval()
    fused = fuse(model, pictures(4))
    assert fused.report.fused == {}
    assert_same(fused, model, pictures(4))


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
    assert list(fused.report.alone) == ["conv_stem", "conv_head"]
    kinds = {type(module).__name__ for module in fused.network.modules() if not list(module.children())}
    assert "BatchNorm2d" not in kinds
    assert_same(fused, model, x, 1e-4)


def test_a_network_of_blocks_runs_in_bfloat16():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block(), Block())).bfloat16()
    x = pictures().bfloat16()
    fused = fuse(model, x)
    assert fused(x).dtype is torch.bfloat16
    assert len(fused.report.fused) == 2
