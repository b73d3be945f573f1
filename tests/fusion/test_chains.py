"""Which chains are found and become one layer, and the reason for every one that stays as it is."""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false

import copy

import pytest
import torch
import torch.nn.functional as F
from chains import NORM, Block, assert_same, chain, layers_of, pictures, wide
from plain_networks import settle
from torch import Tensor, nn

from sepwise.fusion import fuse
from sepwise.nn import FusedBlock, SeparableConv1d

FUSED = {  # what is built: what the layer says it computes
    "nothing between": (lambda: chain(), "depthwise 3x3, pointwise 6 to 8"),
    "MobileNet": (
        lambda: chain(None, NORM(6), nn.ReLU6(inplace=True), after=(NORM(8), nn.ReLU6(inplace=True))),
        "depthwise 3x3, relu6, pointwise 6 to 8, relu6",
    ),
    "no biases": (
        lambda: chain(wide(3, bias=False), NORM(6), nn.ReLU(), pointwise=nn.Conv2d(6, 8, 1, bias=False)),
        "depthwise 3x3, relu, pointwise 6 to 8",
    ),
    "norms without affine": (
        lambda: chain(None, NORM(6, affine=False), after=(NORM(8, affine=False), nn.Hardswish())),
        "depthwise 3x3, pointwise 6 to 8, hardswish",
    ),
    "multiplier 3": (
        lambda: chain(wide(3, out=18), NORM(18), nn.GELU(), after=(nn.ELU(),)),
        "depthwise 3x3 times 3, gelu, pointwise 6 to 8, elu",
    ),
    "stride 2 x 1": (lambda: chain(wide(5, stride=(2, 1), padding=2)), "depthwise 5x5 stride 2x1, pointwise 6 to 8"),
    "dilation": (lambda: chain(wide(3, dilation=2, padding=2), nn.SiLU()), "depthwise 3x3, silu, pointwise 6 to 8"),
    "even kernel, same: uneven padding": (
        lambda: chain(wide((4, 2), padding="same")),
        "depthwise 4x2, pointwise 6 to 8",
    ),
    "uneven padding before": (
        lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 2, 3)), *chain(wide(3, padding=1))[3:]),
        "depthwise 3x3, pointwise 6 to 8",
    ),
    "reflected padding": (
        lambda: chain(wide(3, padding=1, padding_mode="reflect")),
        "depthwise 3x3, pointwise 6 to 8",
    ),
    "identities and dropout": (
        lambda: chain(None, nn.Identity(), nn.Dropout(), nn.Sequential(nn.Identity(), nn.ReLU()), nn.Dropout2d()),
        "depthwise 3x3, relu, pointwise 6 to 8",
    ),
    "hardtanh from 0 to 6": (lambda: chain(None, nn.Hardtanh(0, 6)), "depthwise 3x3, relu6, pointwise 6 to 8"),
    "a second activation stays": (
        lambda: chain(after=(nn.ReLU(), nn.SiLU())),
        "depthwise 3x3, pointwise 6 to 8, relu",
    ),
    "an activation of another slope stays": (lambda: chain(after=(nn.ELU(0.5),)), "depthwise 3x3, pointwise 6 to 8"),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("make", "says"), FUSED.values(), ids=FUSED)
def test_a_chain_becomes_one_layer(make, says):
    model = settle(make()).double()
    x = pictures(model[1].in_channels if isinstance(model[0], nn.ZeroPad2d) else 3)
    fused = fuse(model, x[:1])
    name = "1" if isinstance(model[0], nn.ZeroPad2d) else "3"
    assert fused.report.fused == {name: says}
    assert fused.report.left == {}
    assert layers_of(fused) == [name]
    assert not layers_of(fused, NORM)
    assert fused.report.difference <= 1e-13
    assert_same(fused, model, x)
    with torch.no_grad():
        fused.network.get_submodule(name).pointwise *= 1.0001  # a planted fault
    with pytest.raises(AssertionError):
        assert_same(fused, model, x)


NOT_FUSED = {
    "a dense convolution follows": (
        lambda: chain(pointwise=nn.Conv2d(6, 8, 3)),
        "Conv2d 4 follows, with a kernel of 3x3; a pointwise one has 1x1",
    ),
    "grouped": (
        lambda: chain(pointwise=nn.Conv2d(6, 8, 1, groups=2)),
        "Conv2d 4 follows in 2 groups; one operation mixes all channels",
    ),
    "strided": (
        lambda: chain(pointwise=nn.Conv2d(6, 8, 1, stride=2)),
        "Conv2d 4 follows, which strides or pads; one operation does so in its depthwise step",
    ),
    "padded": (
        lambda: chain(pointwise=nn.Conv2d(6, 8, 1, padding=1)),
        "Conv2d 4 follows, which strides or pads; one operation does so in its depthwise step",
    ),
    "two activations": (lambda: chain(None, nn.ReLU(), nn.SiLU()), "SiLU 5 follows, not a pointwise convolution"),
    "another norm": (
        lambda: chain(None, nn.GroupNorm(2, 6)),
        "GroupNorm 4 follows, not a pointwise convolution",
    ),
    "a norm after the activation": (
        lambda: chain(None, nn.ReLU(), NORM(6)),
        "BatchNorm2d 5 follows, which could not be folded into a convolution",
    ),
    "a norm of each batch": (
        lambda: chain(None, NORM(6, track_running_stats=False)),
        "BatchNorm2d 4 follows, which could not be folded into a convolution",
    ),
    "gelu of another form": (
        lambda: chain(None, nn.GELU("tanh")),
        "GELU 4 follows, not a pointwise convolution",
    ),
    "the end": (lambda: nn.Sequential(*chain()[:4]), "the output of the network follows, not a pointwise convolution"),
}


@pytest.mark.parametrize(("make", "why"), NOT_FUSED.values(), ids=NOT_FUSED)
def test_what_is_no_chain_stays_with_a_reason(make, why):
    model = settle(make()).double()
    fused = fuse(model, pictures())
    assert fused.report.left == {"3": why}
    assert fused.report.fused == {}
    assert why in str(fused.report)
    assert_same(fused, model, pictures())


def test_an_inverted_residual_keeps_its_shortcut():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block(), nn.Tanh(), Block(), nn.Tanh())).double()
    fused = fuse(model, pictures())
    says = "expand 4 to 12, relu6, depthwise 3x3, relu6, pointwise 12 to 4, add"
    assert fused.report.fused == {"1.depthwise": says, "3.depthwise": says}
    assert fused.report.alone == {"0": "pointwise 3 to 4"}
    assert fused.report.norms == 6
    assert_same(fused, model, pictures())
    assert "2 of 2 depthwise or separable convolutions run as one operation each" in str(fused.report)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("squeezed and excited", "its output is read 2 times (mean, mul), so it must exist"),
        ("read after the norm", "its output is read 2 times (Conv2d 1.project, mean), so it must exist"),
        ("read before the norm", "its output is read 2 times (BatchNorm2d 1.norm, mean), so it must exist"),
        ("depthwise called twice", "it is called 2 times, each time on other inputs"),
        ("pointwise called twice", "its output is read 2 times (Conv2d 1.project, tanh), so it must exist"),
    ],
)
def test_a_value_that_others_read_is_not_fused_away(how, why):
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block(how), nn.Tanh())).double()
    fused = fuse(model, pictures())
    assert fused.report.left == {"1.depthwise": why}
    assert_same(fused, model, pictures())


def test_a_shared_pointwise_convolution_is_not_fused():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.mix = wide(3, padding=1), wide(5, padding=2), nn.Conv2d(6, 6, 1)

        def forward(self, x):
            return self.mix(self.two(self.mix(self.one(x))))

    model = settle(Shared()).double()
    fused = fuse(model, pictures(6))
    why = "Conv2d mix follows, and it is called 2 times, each time on other inputs"
    assert fused.report.left == {"one": why, "two": why}
    assert_same(fused, model, pictures(6))


def test_a_shared_norm_is_not_fused_but_a_shared_activation_is():
    norm, relu = NORM(6), nn.ReLU(inplace=True)
    parts = [wide(3, padding=1), norm, relu, nn.Conv2d(6, 6, 1), nn.Tanh(), wide(3), norm, relu, nn.Conv2d(6, 6, 1)]
    model = settle(nn.Sequential(*parts)).double()
    fused = fuse(model, pictures(6))
    assert set(fused.report.left) == {"0", "5"}
    assert_same(fused, model, pictures(6))
    model[6] = copy.deepcopy(norm)
    fused = fuse(model, pictures(6))
    assert set(fused.report.fused) == {"0", "5"}
    assert_same(fused, model, pictures(6))


@pytest.mark.parametrize("place", [3, 4, 5, 6], ids=["depthwise", "norm", "activation", "pointwise"])
def test_hooks_are_not_lost(place):
    model = settle(chain(None, NORM(6), nn.ReLU())).double()
    model[place].register_forward_hook(lambda module, inputs, output: output * 2)
    fused = fuse(model, pictures())
    assert fused.report.fused == {}
    assert_same(fused, model, pictures())


class Functional(nn.Module):
    """A chain written with functions, and a padding before it."""

    def __init__(self, axes: int = 2) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
        self.axes = axes
        self.stem, self.depthwise = conv(3, 6, 1), conv(6, 12, 3, stride=2, groups=6, bias=False)
        self.pointwise = conv(12, 8, 1)
        self.norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[axes](12)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.stem(x), (0, 1) * self.axes)
        x = F.dropout(F.hardswish(self.norm(self.depthwise(input=x))), 0.1, self.training)
        return torch.relu_(self.pointwise(x)).flatten(1).cumsum(1)


@pytest.mark.parametrize("axes", [1, 2])
def test_functions_are_read_like_modules(axes):
    model = settle(Functional(axes)).double()
    x = pictures(size=(9,) * axes)
    fused = fuse(model, x)
    kernel, stride = ("x".join(n * axes) for n in "32")
    says = f"depthwise {kernel} times 2 stride {stride}, hardswish, pointwise 6 to 8, relu"
    assert fused.report.fused == {"depthwise": {1: says, 2: f"expand 3 to 6, {says}"}[axes]}
    layer = fused.network.get_submodule("depthwise")
    assert isinstance(layer, {1: SeparableConv1d, 2: FusedBlock}[axes])
    geometry = layer.geometry if isinstance(layer, FusedBlock) else layer.conv.geometry
    assert geometry is not None
    assert geometry.padding == ((0, 1),) * axes
    assert_same(fused, model, x)


def test_three_dimensions_stay():
    model = settle(Functional(3)).double()
    fused = fuse(model, pictures(size=(7, 6, 5)))
    assert fused.report.left == {"depthwise": "it has three dimensions"}
    assert_same(fused, model, pictures(size=(7, 6, 5)))
