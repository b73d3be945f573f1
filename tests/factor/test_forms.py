"""What every form promises, on random shapes, groups and geometries: exact at full rank, and honest numbers."""

from itertools import pairwise

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepwise.factor import FORMS, compose, energy_kept, factorize, shape_of
from sepwise.geometry import ConvShape, Geometry, chain_macs

by_form = pytest.mark.parametrize("form", list(FORMS))
quick = settings(max_examples=30, deadline=None, derandomize=True)


def test_the_forms_in_their_order():
    assert list(FORMS) == ["depthwise", "blueprint", "spatial", "spatial_reversed", "cp", "tucker"]


def random_weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def weights(draw, axes: tuple[int, int] = (1, 3)) -> tuple[torch.Tensor, int]:
    """(weight, groups) with one to three axes; at least one axis has more than one pixel."""
    groups, out, into = (draw(st.integers(1, 4)) for _ in range(3))
    kernel = draw(st.lists(st.integers(1, 4), min_size=axes[0], max_size=axes[1]).filter(lambda k: max(k) > 1))
    return random_weight(groups * out, into, *kernel, seed=draw(st.integers(0, 2**31))), groups


def for_form(form: str):
    return weights(axes=(2, 3) if form.startswith("spatial") else (1, 3))


def ranks_of(form: str, weight: torch.Tensor, groups: int) -> list:
    full = FORMS[form].full_rank(shape_of(weight.shape, groups))
    if isinstance(full, tuple):
        return [(max(1, full[0] * n // 3), max(1, full[1] * n // 3)) for n in (1, 2, 3)]
    return sorted({1, 2, full // 3, full // 2, full} & set(range(1, full + 1)))


@by_form
def test_full_rank_is_the_weight(form):
    @quick
    @given(for_form(form))
    def check(drawn):
        weight, groups = drawn
        factors = factorize(weight, form, groups=groups)
        assert factors.dense_weight().shape == weight.shape
        torch.testing.assert_close(factors.dense_weight(), weight, rtol=1e-10, atol=1e-10)
        assert factors.energy_kept == pytest.approx(1, abs=1e-12)

    check()


@by_form
@pytest.mark.parametrize("step", [0, 1])
def test_the_tolerance_sees_one_wrong_number(form, step):
    weight = random_weight(6, 4, 3, 3)
    factors = factorize(weight, form)
    wrong = [w.clone() for w in factors.weights]
    place = int(wrong[step].abs().argmax())
    wrong[step].view(-1)[place] *= 1 + 1e-6
    with pytest.raises(AssertionError):
        torch.testing.assert_close(compose(wrong, [s.groups for s in factors.steps]), weight, rtol=1e-10, atol=1e-10)


@by_form
def test_shapes_parameters_and_energy_agree_with_the_weights(form):
    @quick
    @given(for_form(form), st.data())
    def check(drawn, data):
        weight, groups = drawn
        rank = data.draw(st.sampled_from(ranks_of(form, weight, groups)))
        factors = factorize(weight, form, rank, groups=groups)
        assert [tuple(w.shape) for w in factors.weights] == [step.weight_shape for step in factors.steps]
        assert all(w.is_contiguous() for w in factors.weights)  # as safetensors and the layers want them
        assert factors.parameters == sum(w.numel() for w in factors.weights)
        assert factors.dense_shape == tuple(weight.shape)
        assert (factors.rank, factors.groups, factors.form) == (rank, groups, form)
        lost = (weight - factors.dense_weight()).square().sum() / weight.square().sum()
        assert factors.energy_kept == pytest.approx(1 - float(lost), abs=1e-12)

    check()


@by_form
def test_more_rank_never_keeps_less(form):
    @quick
    @given(for_form(form))
    def check(drawn):
        weight, groups = drawn
        kept = [factorize(weight, form, rank, groups=groups).energy_kept for rank in ranks_of(form, weight, groups)]
        # a closed answer is monotone to rounding; the local optima of cp are so only nearly
        slack = 0.02 if form == "cp" else 1e-6 if form == "tucker" else 1e-12
        assert all(more >= less - slack for less, more in pairwise(kept))
        assert min(kept) > 0

    check()


@by_form
def test_groups_are_factorized_block_by_block(form):
    weight = random_weight(9, 2, 3, 4)
    rank = (1, 2) if form == "tucker" else 2
    whole = factorize(weight, form, rank, groups=3)
    blocks = [factorize(block, form, rank) for block in weight.chunk(3)]
    dense = torch.cat([block.dense_weight() for block in blocks])
    # trials of the alternating forms stop together in a whole, each by itself in blocks
    tolerance = 0.02 if form == "cp" else 1e-3 if form == "tucker" else 1e-12
    assert whole.energy_kept == pytest.approx(energy_kept(weight, dense), abs=tolerance)
    if tolerance == 1e-12:
        torch.testing.assert_close(whole.dense_weight(), dense, rtol=1e-12, atol=1e-12)


@by_form
def test_the_chain_of_convolutions_is_the_convolution_with_the_dense_weight(form):
    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(for_form(form), st.data())
    def check(drawn, data):
        weight, groups = drawn
        axes = weight.ndim - 2
        each = st.lists(st.integers(1, 2), min_size=axes, max_size=axes)
        pads = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=axes, max_size=axes)
        geometry = Geometry.of(weight.shape[2:], data.draw(each), data.draw(pads), data.draw(each))
        factors = factorize(weight, form, data.draw(st.sampled_from(ranks_of(form, weight, groups))), groups=groups)
        steps = FORMS[form].steps(shape_of(weight.shape, groups, geometry), factors.rank)
        x = random_weight(2, weight.shape[1] * groups, *(e + 2 for e in geometry.extent), seed=1).numpy()
        y = x
        for step, step_weight in zip(steps, factors.weights, strict=True):
            y = convolved(y, step_weight, step.geometry, step.groups)
        expected = convolved(x, factors.dense_weight(), geometry, groups)
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())

    check()


def convolved(x, weight, geometry: Geometry, groups: int):
    assert geometry.padding != "same"
    return oracle.convolution(
        x,
        weight,
        stride=geometry.stride,
        padding=list(geometry.padding),
        dilation=geometry.dilation,
        groups=groups,
    )


@by_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_floating_dtype_goes_in_and_comes_out(form, dtype):
    weight = random_weight(6, 4, 3, 3).to(dtype)
    factors = factorize(weight, form)
    assert {w.dtype for w in factors.weights} == {dtype}
    assert factors.energy_kept > 1 - 100 * torch.finfo(dtype).eps ** 2
    assert not any(w.requires_grad for w in factorize(weight.requires_grad_(), form).weights)


@by_form
def test_zeros_stay_zeros(form):
    factors = factorize(torch.zeros(4, 2, 3, 3), form, (1, 1) if form == "tucker" else 1, groups=2)
    assert factors.energy_kept == 1
    assert not any(bool(w.isnan().any()) for w in factors.weights)
    assert float(factors.dense_weight().abs().max()) == 0


@by_form
def test_one_dead_group_or_channel_harms_nobody(form):
    weight = random_weight(6, 3, 3, 3)
    weight[3:] = 0
    weight[:, 1] = 0
    factors = factorize(weight, form, groups=2)
    torch.testing.assert_close(factors.dense_weight(), weight, rtol=1e-10, atol=1e-10)


@by_form
def test_scale_does_not_matter(form):
    weight, rank = random_weight(6, 4, 3, 3), (2, 3) if form == "tucker" else 3
    kept = factorize(weight, form, rank).energy_kept
    for scale in (1e-18, 1e12):
        assert factorize(weight * scale, form, rank).energy_kept == pytest.approx(kept, abs=1e-6)


@by_form
def test_the_same_weight_gives_the_same_factors(form):
    weight, rank = random_weight(6, 4, 3, 3), (2, 3) if form == "tucker" else 3
    first, second = factorize(weight, form, rank), factorize(weight, form, rank)
    assert all(torch.equal(a, b) for a, b in zip(first.weights, second.weights, strict=True))


@by_form
def test_a_kernel_of_one_pixel(form):
    weight = random_weight(4, 3, 1, 1)
    if form == "tucker":
        assert factorize(weight, form, (2, 2)).energy_kept < 1
        return
    assert "a kernel of one pixel (1, 1) has nothing to separate" in str(FORMS[form].why_not(shape_of(weight.shape)))
    # the chain itself exists, so that a layer of any kernel size can be built
    assert FORMS[form].steps(shape_of(weight.shape), 1)[0].in_channels == 3


def resnet56() -> list[tuple[ConvShape, tuple[int, int]]]:
    """The 54 inner 3x3 convolutions of the CIFAR ResNet-56, each with the size of its input."""

    def conv(into: int, out: int, stride: int = 1) -> ConvShape:
        return ConvShape(into, out, Geometry.of((3, 3), stride, padding=1))

    return [
        *[(conv(16, 16), (32, 32))] * 18,
        (conv(16, 32, stride=2), (32, 32)),
        *[(conv(32, 32), (16, 16))] * 17,
        (conv(32, 64, stride=2), (16, 16)),
        *[(conv(64, 64), (8, 8))] * 17,
    ]


STEM_AND_CLASSIFIER = 16 * 3 * 9 * 32 * 32 + 64 * 10


def test_resnet56_dense():
    assert STEM_AND_CLASSIFIER + sum(conv.macs(size) for conv, size in resnet56()) == 125_485_696


@pytest.mark.parametrize(
    ("form", "rank", "macs"),
    [
        ("depthwise", lambda conv: 1, 18_926_208),
        ("depthwise", lambda conv: 2, 37_409_408),
        ("depthwise", lambda conv: 3, 55_892_608),
        ("depthwise", lambda conv: 4, 74_375_808),
        ("blueprint", lambda conv: 1, 19_767_936),  # the pointwise step runs before the stride
        ("blueprint", lambda conv: 2, 39_092_864),
        ("blueprint", lambda conv: 3, 58_417_792),
        ("spatial", lambda conv: conv.in_channels, 83_804_800),
        ("spatial", lambda conv: conv.in_channels * 3 // 4, 62_964_352),
        ("spatial", lambda conv: conv.in_channels // 2, 42_123_904),
        ("spatial", lambda conv: conv.in_channels // 4, 21_283_456),
        ("tucker", lambda conv: (conv.in_channels // 2, conv.out_channels // 2), 45_859_456),
        ("tucker", lambda conv: (conv.in_channels // 4, conv.out_channels // 4), 15_336_064),
    ],
)
def test_resnet56_in_every_form(form, rank, macs):
    chains = [(FORMS[form].steps(conv, rank(conv)), size) for conv, size in resnet56()]
    assert STEM_AND_CLASSIFIER + sum(chain_macs(steps, size) for steps, size in chains) == macs


@pytest.mark.parametrize(
    ("form", "rank", "parameters", "macs"),
    [  # a convolution 6 -> 8, kernel 3 x 5, groups 2, on 10 x 11 at stride 2, padding 1: 5 x 5 positions
        ("depthwise", 2, 12 * 15 + 8 * 6, (12 * 15 + 8 * 6) * 25),
        ("blueprint", 2, 16 * 3 + 16 * 15, 16 * 3 * 110 + 16 * 15 * 25),
        ("spatial", 4, 8 * 3 * 3 + 8 * 4 * 5, 8 * 3 * 3 * 5 * 11 + 8 * 4 * 5 * 25),
        ("spatial_reversed", 4, 8 * 3 * 5 + 8 * 4 * 3, 8 * 3 * 5 * 10 * 5 + 8 * 4 * 3 * 25),
        ("cp", 4, 8 * 3 + 8 * 15 + 8 * 4, 8 * 3 * 110 + (8 * 15 + 8 * 4) * 25),
        ("tucker", (2, 3), 4 * 3 + 6 * 2 * 15 + 8 * 3, 4 * 3 * 110 + (6 * 2 * 15 + 8 * 3) * 25),
    ],
)
def test_cost_by_hand(form, rank, parameters, macs):
    factors = factorize(random_weight(8, 3, 3, 5), form, rank, groups=2)
    assert factors.parameters == parameters
    assert factors.macs((10, 11), stride=2, padding=1) == macs
