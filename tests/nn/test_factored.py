"""Every layer class against the dense convolution it stands for, over random geometries."""

import copy
import io
import math
import pickle
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from sepwise.errors import ShapeError, UnsupportedError
from sepwise.factor import FORMS, Factors, factorize
from sepwise.geometry import ConvShape, Geometry
from sepwise.nn import LAYERS, FactoredConv, SeparableConv2d, SpatialConv2d, TuckerConv2d, layer_for
from sepwise.ops.conv import PADDING_MODES

STOCK: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
by_layer = pytest.mark.parametrize("layer_class", LAYERS, ids=lambda c: c.__name__)


def new(layer_class: type[FactoredConv], *arguments: Any, rank: Any, **options: Any) -> FactoredConv:
    return layer_class(*arguments, **{layer_class.rank_name: rank}, **options)


@st.composite
def geometries(draw: Any, axes: int) -> dict[str, Any]:
    each = st.tuples(*[st.integers(1, 3)] * axes)
    few = st.integers(0, 2)
    return {
        "kernel_size": draw(each.filter(lambda kernel: math.prod(kernel) > 1)),
        "stride": draw(each),
        "dilation": draw(st.tuples(*[st.integers(1, 2)] * axes)),
        "padding": draw(st.one_of(st.sampled_from(["same", "valid"]), few, st.tuples(*[st.tuples(few, few)] * axes))),
        "padding_mode": draw(st.sampled_from(PADDING_MODES)),
        "bias": draw(st.booleans()),
    }


def dense(layer: FactoredConv, x: torch.Tensor) -> np.ndarray:
    """The oracle's convolution with the dense weight of the layer."""
    g = layer.conv.geometry
    where = {"stride": g.stride, "padding": g.padding, "dilation": g.dilation, "padding_mode": layer.padding_mode}
    return oracle.convolution(x, layer.dense_weight(), layer.dense_bias(), groups=layer.conv.groups, **where)


def picture(layer: FactoredConv) -> torch.Tensor:
    size = [extent + 4 for extent in layer.conv.geometry.extent]
    return torch.randn(2, layer.conv.in_channels, *size, dtype=torch.float64)


@by_layer
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_layer_equals_dense_convolution(layer_class: type[FactoredConv], data: Any) -> None:
    groups = data.draw(st.integers(1, 3))
    channels = [groups * data.draw(st.integers(1, 3)) for _ in range(2)]
    rank = data.draw(st.one_of(st.integers(1, 4), st.just((1, 2)) if layer_class.form == "tucker" else st.just(1)))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    options = data.draw(geometries(layer_class.ndim))
    layer = new(layer_class, *channels, **options, groups=groups, rank=rank, dtype=torch.float64)
    x = picture(layer)
    assert layer.dense_weight().shape == layer.conv.weight_shape
    np.testing.assert_allclose(layer(x).detach().numpy(), dense(layer, x), rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # of nn.Conv2d
@by_layer
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_full_rank_is_the_dense_layer(layer_class: type[FactoredConv], data: Any) -> None:
    groups = data.draw(st.integers(1, 2))
    channels = [groups * data.draw(st.integers(1, 3)) for _ in range(2)]
    options = data.draw(geometries(layer_class.ndim))
    strided = max(options["stride"]) > 1
    if not isinstance(options["padding"], int) and (options["padding"] != "same" or strided):
        options["padding"] = data.draw(st.integers(0, 2))  # nn.Conv2d knows no uneven padding, no "same" at a stride
    torch.manual_seed(data.draw(st.integers(0, 99)))
    conv = STOCK[layer_class.ndim](*channels, **options, groups=groups, dtype=torch.float64)
    layer = layer_class.from_conv(conv)
    x = picture(layer)
    torch.testing.assert_close(layer(x), conv(x), rtol=0, atol=1e-10)
    torch.testing.assert_close(layer.dense_weight(), conv.weight, rtol=0, atol=1e-10)


@by_layer
def test_a_lower_rank_is_the_nearest_and_not_the_same(layer_class: type[FactoredConv]) -> None:
    conv = STOCK[layer_class.ndim](6, 5, 3, dtype=torch.float64)
    layer = layer_class.from_conv(conv, rank=1)
    factors = factorize(conv.weight, layer_class.form, 1)
    torch.testing.assert_close(layer.dense_weight(), factors.dense_weight(), rtol=0, atol=1e-12)
    assert (layer.dense_weight() - conv.weight).abs().max() > 1e-2  # so the 1e-10 of full rank means something


@by_layer
def test_from_conv_keeps_everything_else(layer_class: type[FactoredConv]) -> None:
    make = STOCK[layer_class.ndim]
    conv = make(4, 6, 3, 2, 1, groups=2, padding_mode="circular", bias=False, dtype=torch.bfloat16).eval()
    conv.weight.requires_grad_(False)
    before, state = conv.weight.clone(), torch.get_rng_state()
    layer = layer_class.from_conv(conv, rank=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(conv.weight, before)
    assert layer.bias is None
    assert not layer.training
    assert (layer.padding_mode, layer.conv.groups) == ("circular", 2)
    assert all(w.dtype == torch.bfloat16 and not w.requires_grad for w in layer.weights)
    assert layer.conv.geometry == Geometry.of(conv.kernel_size, 2, 1)
    biased = make(4, 6, 3)
    assert torch.equal(layer_class.from_conv(biased, rank=1).bias, biased.bias)  # type: ignore[arg-type]


@by_layer
def test_outputs_vary_as_those_of_the_dense_layer(layer_class: type[FactoredConv]) -> None:
    rank = (16, 24) if layer_class.form == "tucker" else 4
    layers = [new(layer_class, 32, 32, 3, rank=rank, bias=False) for _ in range(40)]
    variance = torch.stack([layer.dense_weight().square().sum() / 32 for layer in layers]).mean()
    assert abs(variance.item() - 1 / 3) < 0.03  # unit inputs; a step drawn by nn.Conv2d's own rule would give 1/9
    biased = new(layer_class, 32, 256, 3, rank=rank)
    assert biased.bias is not None
    assert 0.9 < biased.bias.abs().max() * math.sqrt(32 * 3**layer_class.ndim) <= 1


@by_layer
def test_copies_and_files(layer_class: type[FactoredConv]) -> None:
    layer, other = (new(layer_class, 4, 6, 3, padding="same", stride=2, rank=2) for _ in range(2))
    x = torch.randn(1, 4, *[5] * layer_class.ndim)
    assert not torch.equal(layer(x), other(x))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert list(other.state_dict()) == [*(step.name for step in layer.steps), "bias"]
    for same in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(same(x), layer(x))
    layer.reset_parameters()
    assert not torch.equal(other(x), layer(x))


@by_layer
def test_exports_with_any_batch_and_size(layer_class: type[FactoredConv]) -> None:
    layer = new(layer_class, 4, 6, 3, padding="same", stride=2, rank=2)
    dim = torch.export.Dim
    axes = {a + 2: dim(f"size{a}", min=4) for a in range(layer_class.ndim)}
    example = torch.randn(2, 4, *[8] * layer_class.ndim)
    program = torch.export.export(layer, (example,), dynamic_shapes={"x": {0: dim("batch"), **axes}})
    x = torch.randn(3, 4, *[5] * layer_class.ndim)
    torch.testing.assert_close(program.module()(x), layer(x))


@pytest.mark.parametrize("layer_class", [SpatialConv2d, SeparableConv2d])
def test_compiles_whole(layer_class: type[FactoredConv]) -> None:
    layer = new(layer_class, 4, 6, 3, padding="same", stride=2, padding_mode="reflect", rank=2)
    x = torch.randn(2, 4, 8, 9)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))


@by_layer
def test_gradients_reach_every_part(layer_class: type[FactoredConv]) -> None:
    layer = new(layer_class, 2, 2, 2, rank=1, dtype=torch.float64)
    x = torch.randn(1, 2, *[3] * layer_class.ndim, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def call(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *layer.parameters()))


def test_repr() -> None:
    layer = SpatialConv2d(4, 6, (3, 5), 2, ((0, 1), (2, 2)), 2, 2, False, "reflect", rank=3)
    assert repr(layer) == (
        "SpatialConv2d(4, 6, kernel_size=(3, 5), stride=(2, 2), padding=((0, 1), (2, 2)), dilation=(2, 2), groups=2, "
        "bias=False, padding_mode='reflect', rank=3)"
    )


def test_no_rank_is_the_full_rank() -> None:
    assert TuckerConv2d(4, 6, 3).rank == (4, 6)
    assert SpatialConv2d(4, 6, 3).rank == 12
    assert TuckerConv2d(4, 6, 3, rank=2).rank == (2, 2)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: SpatialConv2d(4, 6, 3, rank=0), "SpatialConv2d: rank=0: expected an integer >= 1"),
        (lambda: SpatialConv2d(4, 6, 3, rank=True), "rank=True: expected an integer >= 1"),
        (lambda: SpatialConv2d(4, 6, 3, rank=(1, 2)), r"rank=\(1, 2\): expected an integer >= 1"),
        (lambda: new(TuckerConv2d, 4, 6, 3, rank=(1, 2, 3)), r"expected an integer >= 1 or two, \(in, out\)"),
        (lambda: SeparableConv2d(4, 6, 3, depth_multiplier=-1), "depth_multiplier=-1: expected an integer >= 1"),
        (lambda: SpatialConv2d(4, 6, (3, 3, 3)), r"kernel_size=\(3, 3, 3\): expected one or 2 integers"),
        (lambda: SpatialConv2d(4, 6, 3, groups=3), "in_channels=4 must be a positive multiple of groups=3"),
        (lambda: SpatialConv2d(4, 6, 3, padding_mode="mirror"), "padding_mode='mirror': expected one of zeros"),
        (lambda: SpatialConv2d(4, 6, 3)(torch.ones(4, 9, 9)), r"expected an input \(N, 4, H, W\), got \(4, 9, 9\)"),
        (
            lambda: SpatialConv2d(4, 6, 3)(torch.ones(1, 3, 9, 9)),
            r"expected an input \(N, 4, H, W\), got \(1, 3, 9, 9\)",
        ),
        (lambda: SpatialConv2d(4, 6, 3)(torch.ones(1, 4, 2, 2)), "the output would be empty"),
        (lambda: SpatialConv2d.from_conv(nn.Conv2d(4, 6, 3), rank=13), "expected an integer from 1 to 12"),
    ],
)
def test_sizes_that_do_not_fit(call: Any, sentence: str) -> None:
    with pytest.raises(ShapeError, match=sentence):
        call()


class OwnForward(nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return super().forward(2 * input)


class NothingOwn(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    ("conv", "sentence"),
    [
        (nn.ConvTranspose2d(4, 6, 3), "SpatialConv2d: ConvTranspose2d is a transposed convolution"),
        (nn.Conv3d(4, 6, 3), "expected an nn.Conv2d, got Conv3d"),
        (nn.Linear(4, 6), "expected an nn.Conv2d, got Linear"),
        (OwnForward(4, 6, 3), "OwnForward computes something of its own; only a plain nn.Conv2d"),
        (nn.LazyConv2d(6, 3), "LazyConv2d has no weights yet"),
        (weight_norm(nn.Conv2d(4, 6, 3)), r"its weight is computed \(parametrization, weight norm or pruning\)"),
        (nn.Conv2d(4, 6, 1), "a kernel of one pixel"),
        (nn.Conv2d(4, 6, 3, dtype=torch.complex64), "must hold finite floating-point numbers"),
    ],
)
def test_what_cannot_be_factored(conv: nn.Module, sentence: str) -> None:
    with pytest.raises((UnsupportedError, ShapeError), match=sentence):
        SpatialConv2d.from_conv(conv)


def test_a_subclass_with_nothing_of_its_own_is_fine() -> None:
    conv = NothingOwn(2, 2, 3)
    torch.testing.assert_close(SpatialConv2d.from_conv(conv)(torch.ones(1, 2, 3, 3)), conv(torch.ones(1, 2, 3, 3)))


def test_factors_of_another_shape_are_refused() -> None:
    conv = nn.Conv2d(4, 6, 3)
    for weight, form in ((conv.weight, "cp"), (torch.randn(6, 3, 3, 3), "spatial")):
        with pytest.raises(ShapeError, match=rf"the factors \({form}\) stand for .*; expected spatial, \(6, 4, 3, 3\)"):
            SpatialConv2d.from_factors(factorize(weight, form, 1), conv)


def test_factors_fitted_elsewhere_are_loaded() -> None:
    conv = nn.Conv2d(4, 6, 3)
    factors = factorize(conv.weight, "spatial", 2)
    doubled = Factors("spatial", 2, 1, factors.steps, (2 * factors.weights[0], factors.weights[1]), 0.0)
    layer = SpatialConv2d.from_factors(doubled, conv)
    torch.testing.assert_close(layer.dense_weight(), 2 * factors.dense_weight())


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_layer_for_every_form(form: str, axes: int) -> None:
    conv = ConvShape(4, 6, Geometry.of((3,) * axes, 2, "same"), 2)
    if form.startswith("spatial") and axes == 1:
        with pytest.raises(UnsupportedError, match=rf"layer_for: {form}: .* has one spatial axis"):
            layer_for(form, conv, 1)
        return
    layer = layer_for(form, conv, 1, bias=False, padding_mode="replicate", dtype=torch.float64)
    assert (layer.form, layer.ndim, layer.conv, layer.bias) == (form, axes, conv, None)
    assert layer(torch.ones(1, 4, *[5] * axes, dtype=torch.float64)).shape == (1, 6, *[3] * axes)
    full = FORMS[form].full_rank(conv)
    assert layer_for(form, conv).rank == full


def test_layer_for_an_unknown_form() -> None:
    with pytest.raises(UnsupportedError, match="there is no form 'winograd'; the forms are depthwise, blueprint"):
        layer_for("winograd", ConvShape(4, 6, Geometry.of((3, 3))))
