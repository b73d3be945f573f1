"""Fused networks: the same outputs with fewer layers, and a reason for every pair that stays as it is."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

import copy
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from plain_networks import Residual, settle
from torch import Tensor, nn

import sepwise
from sepwise.conversion import Choice, Plan, convert, export, fuse, pair
from sepwise.errors import ModelError, UnsupportedError
from sepwise.nn import CPConv2d, SeparableConv1d, SeparableConv2d, SeparableConv3d, SpatialConv2d
from sepwise.sources.models import load_model
from sepwise.zoo import resnet20


def chain(
    depthwise: nn.Module | None = None,
    *between: nn.Module,
    pointwise: nn.Module | None = None,
    after: tuple[nn.Module, ...] = (),
) -> nn.Sequential:
    """A stem of 6 channels, a depthwise and a pointwise convolution with what is given around them, and a head."""
    depthwise = depthwise or nn.Conv2d(6, 6, 3, padding=1, groups=6)
    mid = depthwise.out_channels
    pointwise = pointwise or nn.Conv2d(mid, 8, 1)
    stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
    return nn.Sequential(stem, nn.BatchNorm2d(6), nn.SiLU(), depthwise, *between, pointwise, *after, nn.Tanh())


def wide(*arguments, **options) -> nn.Conv2d:
    """A depthwise convolution of six channels."""
    return nn.Conv2d(6, options.pop("out", 6), *arguments, groups=6, **options)


NORM = nn.BatchNorm2d
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


def pictures(channels: int = 3, n: int = 2, size: tuple[int, ...] = (9, 11)) -> Tensor:
    return torch.randn(n, channels, *size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@torch.no_grad()
def assert_same(found: nn.Module, wanted: nn.Module, x: Tensor, tolerance: float = 1e-12) -> None:
    expected = wanted(x.clone())
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found(x.clone()), expected, rtol=tolerance, atol=tolerance)


def layers_of(model: nn.Module, kind: type[nn.Module] = SeparableConv2d) -> list[str]:
    return [name.removeprefix("network.") for name, m in model.named_modules() if isinstance(m, kind)]


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


class Block(nn.Module):
    """An inverted residual whose parts can be read elsewhere, called twice, or hooked."""

    def __init__(self, how: str = "") -> None:
        super().__init__()
        self.how = how
        self.expand, self.expand_norm = nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.depthwise, self.norm = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12)
        self.project, self.project_norm = nn.Conv2d(12, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.expand_norm(self.expand(x)))
        y = self.depthwise(y)
        if self.how == "depthwise called twice":
            y = self.depthwise(y)
        z = y
        y = self.act(self.norm(y))
        if self.how == "squeezed and excited":
            y = y * y.mean((2, 3), keepdim=True).sigmoid()
        w = self.project(y)
        if self.how == "pointwise called twice":
            w = w + self.project(y.tanh())
        w = self.project_norm(w)
        if self.how == "read after the norm":
            return x + w + y.mean()
        if self.how == "read before the norm":
            return x + w + z.mean()
        return x + w


def test_an_inverted_residual_keeps_its_shortcut():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block(), nn.Tanh(), Block(), nn.Tanh())).double()
    fused = fuse(model, pictures())
    says = "depthwise 3x3, relu6, pointwise 12 to 4"
    assert fused.report.fused == {"1.depthwise": says, "3.depthwise": says}
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
    assert fused.report.fused == {"depthwise": says}
    layer = fused.network.get_submodule("depthwise")
    assert isinstance(layer, {1: SeparableConv1d, 2: SeparableConv2d}[axes])
    assert layer.conv.geometry.padding == ((0, 1),) * axes
    assert_same(fused, model, x)


def test_three_dimensions_stay():
    model = settle(Functional(3)).double()
    fused = fuse(model, pictures(size=(7, 6, 5)))
    assert fused.report.left == {"depthwise": "it has three dimensions"}
    assert_same(fused, model, pictures(size=(7, 6, 5)))


class Deciding(nn.Module):
    """Decides by a size in Python, so only torch.export can follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = chain(None, NORM(6), nn.ReLU6(inplace=True), after=(NORM(8), nn.SiLU(inplace=True)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return x.view(x.shape[0], -1) if x.shape[2] > 4 else x


def test_a_model_followed_by_export_and_an_exported_program_are_fused():
    model = settle(Deciding()).double()
    says = {"body.3": "depthwise 3x3, relu6, pointwise 6 to 8, silu"}
    fused = fuse(model, pictures())
    assert fused.report.fused == says
    assert_same(fused, model, pictures())
    assert_same(fused, model, pictures(n=3))
    program = torch.export.export(model, (pictures(),), strict=False).module()
    fused = fuse(program, pictures())
    assert fused.report.fused == says
    assert not fused.eval().training
    assert_same(fused, model, pictures())
    with pytest.raises(ModelError, match=r"exported in training mode; call model.eval\(\) before the export"):
        fuse(torch.export.export(settle(Deciding()).double().train(), (pictures(),), strict=False).module(), pictures())


def test_a_model_in_training_mode_is_refused():
    model = settle(chain(None, NORM(6)))
    model.train()
    with pytest.raises(ModelError, match=r"the model is in training mode.*call model.eval\(\) first"):
        fuse(model, pictures().float())
    model.eval()[4].train()
    with pytest.raises(ModelError, match=r"its module 4 is in training mode"):
        fuse(model, pictures().float())


def test_what_cannot_be_fused_at_all_is_refused_in_a_sentence():
    model = settle(chain())
    with pytest.raises(ModelError, match="cannot run on these pictures"):
        fuse(model, torch.randn(1, 5, 9, 9))
    with pytest.raises(UnsupportedError, match=r"give torch.channels_last or torch.contiguous_format"):
        fuse(model, torch.randn(1, 3, 9, 9), memory_format=torch.preserve_format)
    settled = settle(chain(None, NORM(6)))
    with torch.no_grad():
        settled[4].running_var[2] = float("nan")
    with pytest.raises(ModelError, match="the batch normalization after 3 holds NaN or Inf"):
        fuse(settled, torch.randn(1, 3, 9, 9))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_wrong_answer_is_refused(monkeypatch, dtype):
    """One channel of one layer lost, in a network of three blocks."""
    blocks = [part for _ in range(3) for part in (Block(), nn.Tanh())]
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), *blocks)).to(dtype)
    x = pictures().to(dtype)
    good = fuse(model, x).report
    assert good.difference <= 0.25 * good.budget
    plain = pair.Pair.layer

    def faulty(self):
        layer = plain(self)
        with torch.no_grad():
            layer.pointwise[:, -1] = 0
        return layer

    monkeypatch.setattr(pair.Pair, "layer", faulty)
    with pytest.raises(ModelError, match=r"would answer differently: by .* where .* can be rounding"):
        fuse(model, x)


def test_a_network_that_rounds_badly_by_itself_is_compared_with_its_own_rounding(monkeypatch):
    """A bias of 3,000 that the norm takes away again: float32 keeps four digits of what remains."""
    model = settle(nn.Sequential(*chain(None, NORM(6), nn.ReLU())[:-1]))
    with torch.no_grad():
        model[3].bias.fill_(3e3)
        model[4].running_mean.fill_(3e3)
        model[4].running_var.fill_(0.1)
    x = pictures().float()
    report = fuse(model, x).report
    assert 1e-4 < report.difference <= report.budget < 5e-2
    monkeypatch.setattr(import_module("sepwise.conversion.sameness"), "OWN_ROUNDINGS", 0)
    with pytest.raises(ModelError, match="would answer differently"):
        fuse(model, x)


def test_the_model_is_left_as_it_was():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block()))
    before, shown = copy.deepcopy(model.state_dict()), repr(model)
    fused = fuse(model, pictures().float())
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.zero_()
    assert repr(model) == shown
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fusing_twice_changes_nothing():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block("squeezed and excited"), Block())).double()
    once = fuse(model, pictures())
    twice = fuse(once, pictures())
    assert twice.report.fused == once.report.fused == {"2.depthwise": "depthwise 3x3, relu6, pointwise 12 to 4"}
    assert twice.report.left == once.report.left
    assert twice.report.norms == 0
    assert list(twice.state_dict()) == list(once.state_dict())
    assert torch.equal(twice(pictures()), once(pictures()))


def test_weights_are_saved_and_copied():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block()))
    x = pictures().float()
    fused = fuse(model, x)
    torch.manual_seed(9)
    other = fuse(settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block())), x)
    assert not torch.equal(other(x), fused(x))
    other.load_state_dict(fused.state_dict())
    assert torch.equal(other(x), fused(x))
    twin = copy.deepcopy(fused)
    assert torch.equal(twin(x), fused(x))
    assert twin.report == fused.report
    assert not any(p.requires_grad for p in twin.parameters())
    assert not fused.training


def test_a_fused_network_is_exported_and_compiled():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block(), nn.Tanh()))
    x = pictures().float()
    fused = fuse(model, x)
    program = export(fused, x).module()
    assert_same(program, model, pictures(n=5).float(), 1e-5)
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    assert_same(compiled, model, x, 1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own
def test_a_fused_network_is_compiled_by_inductor():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block(), nn.Tanh()))
    x = pictures().float()
    assert_same(torch.compile(fuse(model, x), fullgraph=True), model, x, 1e-5)


class Viewing(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.body, self.flat = chain(), module

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.flat(x).view(-1, 2)


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], -1)


def test_memory_formats():
    x = pictures()
    model = settle(Viewing(nn.ReLU())).double()
    fused = fuse(model, x)
    assert_same(fused, model, x)
    assert fused.network.get_submodule("body.0").weight.is_contiguous(memory_format=torch.channels_last)
    flat = settle(nn.Sequential(*chain()[:5])).double()
    assert fuse(flat, x)(x).is_contiguous(memory_format=torch.channels_last)
    assert fuse(flat, x, memory_format=torch.contiguous_format)(x).is_contiguous()
    model = settle(Viewing(Flat())).double()
    with pytest.raises(ModelError, match=r"cannot run on the example in torch.channels_last \(a module may depend on"):
        fuse(model, x)
    assert_same(fuse(model, x, memory_format=torch.contiguous_format), model, x)


LAYERS = {
    "plain": (lambda: SeparableConv2d(6, 8, 3), "depthwise 3x3, pointwise 6 to 8, relu"),
    "all of it": (
        lambda: SeparableConv2d(6, 8, 3, 2, "same", 2, depth_multiplier=2, depthwise_bias=True, between="silu"),
        "depthwise 3x3 times 2 stride 2x2, silu, pointwise 6 to 8, relu",
    ),
    "a norm between": (
        lambda: SeparableConv2d(6, 8, 3, depthwise_bias=True, between_norm=nn.BatchNorm2d, between="relu"),
        "depthwise 3x3, relu, pointwise 6 to 8, relu",
    ),
    "an activation of its own": (
        lambda: SeparableConv2d(6, 8, 3, bias=False, activation="gelu"),
        "depthwise 3x3, pointwise 6 to 8, gelu",
    ),
    "CP": (lambda: CPConv2d(6, 8, 3, padding=1, rank=5), "depthwise 3x3, pointwise 5 to 8, relu"),
    "grouped": (
        lambda: SeparableConv2d(6, 8, 3, groups=2),
        "its pointwise step has 2 groups; one operation mixes all channels",
    ),
    "group norm between": (
        lambda: SeparableConv2d(6, 8, 3, between_norm=lambda channels: nn.GroupNorm(2, channels)),
        "the GroupNorm between its steps cannot be folded into a weight",
    ),
    "spatial": (
        lambda: SpatialConv2d(6, 8, 3),
        "a SpatialConv2d is no depthwise step followed by a pointwise one in one or two dimensions",
    ),
}


@pytest.mark.parametrize(("make", "says"), LAYERS.values(), ids=LAYERS)
def test_separable_layers_take_in_what_surrounds_them(make, says):
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Tanh(), make(), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Tanh())
    for name, parameter in model.named_parameters():
        if name.endswith("depthwise_bias"):
            nn.init.normal_(parameter)
    settle(model).double()
    fused = fuse(model, pictures())
    assert [*fused.report.fused.values(), *fused.report.left.values()] == [says]
    assert fused.report.norms == (0 if "gelu" in says else 1)
    assert_same(fused, model, pictures())
    assert_same(fuse(fused, pictures()), model, pictures())


@pytest.mark.parametrize("kind", ["plain", "all of it", "a norm between", "an activation of its own", "CP"])
def test_programs_exported_from_layers_of_ours_are_fused(kind):
    make, says = LAYERS[kind]
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Tanh(), make(), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Tanh())
    settle(model).double()
    fused = fuse(torch.export.export(model, (pictures(),), strict=False).module(), pictures())
    assert fused.report.fused == {"2.depthwise_step": says}
    assert fused.report.left == {}
    assert fused.report.norms == (0 if "gelu" in says else 2 if "norm" in kind else 1)
    assert_same(fused, model, pictures())


def test_three_dimensional_and_shared_layers_stay():
    model = nn.Sequential(SeparableConv3d(3, 4, 3), nn.ReLU(), nn.Conv3d(4, 2, 1)).double().eval()
    assert "SeparableConv3d" in fuse(model, pictures(size=(7, 6, 5))).report.left["0"]
    layer = SeparableConv2d(3, 3, 3, padding=1)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU()).double().eval()
    fused = fuse(model, pictures())
    assert fused.report.left == {"0": "it is called 2 times, each time on other inputs"}
    assert_same(fused, model, pictures())


@pytest.mark.parametrize("batch_norm", ["fold", "keep"])
@pytest.mark.parametrize("form", ["depthwise", "cp"])
def test_what_convert_made_is_fused(form, batch_norm):
    model = settle(resnet20()).double()
    x = pictures(n=2, size=(32, 32))
    dense = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]
    plan = Plan({name: Choice(form, 3, "", 1, 1, 1, 1) for name in dense}, batch_norm)
    converted = convert(model, plan)
    fused = fuse(converted, x)
    assert len(fused.report.fused) == 19
    assert fused.report.left == {}
    assert not layers_of(fused, nn.BatchNorm2d)
    assert_same(fused, converted, x)
    assert sum(what.endswith("relu") for what in fused.report.fused.values()) == 10  # the others end before a shortcut


def test_a_plan_of_many_forms():
    model = settle(Residual()).double()
    plan = Plan({"stem": Choice("depthwise", 2, "", 1, 1, 1, 1), "body": Choice("spatial", 4, "", 1, 1, 1, 1)})
    converted = convert(model, plan)
    fused = fuse(converted, pictures())
    assert list(fused.report.fused) == ["stem"]
    assert list(fused.report.left) == ["body"]
    assert_same(fused, converted, pictures())


TIMM = {
    "mobilenetv1_100": (13, 0),
    "mobilenetv2_100": (17, 0),
    "efficientnet_lite0": (16, 0),
    "mobilenetv3_small_050": (2, 9),
}


@pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm(name):
    model = settle(load_model(f"timm:{name}").model)
    x = pictures(n=2, size=(64, 64)).float()
    fused = fuse(model, x)
    assert (len(fused.report.fused), len(fused.report.left)) == TIMM[name]
    assert all("so it must exist" in why for why in fused.report.left.values())
    assert fused.report.difference <= 0.1 * fused.report.budget
    assert not layers_of(fused, nn.BatchNorm2d)


def test_one_operation_is_called(monkeypatch):
    """A fused layer goes through `separable_conv2d` once a call, with everything it took in."""
    from sepwise.nn import separable

    model = settle(chain(None, NORM(6), nn.ReLU6(), after=(NORM(8), nn.SiLU()))).double()
    fused, calls = fuse(model, pictures()), []
    plain = separable.separable_conv2d

    def noted(*arguments, **options):
        calls.append(options)
        return plain(*arguments, **options)

    monkeypatch.setattr(separable, "separable_conv2d", noted)
    assert_same(fused, model, pictures())
    assert [(c["between"], c["activation"], c["depthwise_bias"] is not None) for c in calls] == [
        ("relu6", "silu", True)
    ]


def test_fuse_is_public():
    assert sepwise.fuse is fuse
