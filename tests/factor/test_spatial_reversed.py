"""1 x N -> N x 1: the spatial form of the kernel with its spatial axes in reverse order, and another approximation."""

import pytest
import torch

from sepwise.factor import FORMS, factorize
from sepwise.geometry import ConvShape, Geometry, chain_macs

FORM = FORMS["spatial_reversed"]


def random_weight(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel", [(3, 2), (2, 3, 4)])
@pytest.mark.parametrize("rank", [1, 3])
def test_it_is_the_spatial_form_of_the_turned_kernel(groups, kernel, rank):
    weight = random_weight(6, 4 // groups, *kernel)
    axes = list(range(2, weight.dim()))[::-1]
    factors = factorize(weight, "spatial_reversed", rank, groups=groups)
    turned = factorize(weight.permute(0, 1, *axes), "spatial", rank, groups=groups)
    torch.testing.assert_close(factors.dense_weight(), turned.dense_weight().permute(0, 1, *axes), rtol=0, atol=1e-12)
    assert factors.energy_kept == pytest.approx(turned.energy_kept, abs=1e-12)


def test_the_two_orders_are_different_sets_of_kernels():
    horizontal, vertical = random_weight(2, 6, 1, 3), random_weight(5, 2, 3, 1)
    weight = torch.einsum("omu,miv->oiuv", vertical[..., 0], horizontal[:, :, 0])
    assert factorize(weight, "spatial_reversed", 2).energy_kept == pytest.approx(1, abs=1e-12)
    assert factorize(weight, "spatial", 2).energy_kept < 0.9


def test_steps_keep_each_axis_with_its_own_stride_padding_and_dilation():
    conv = ConvShape(6, 8, Geometry.of((3, 5), stride=(2, 3), padding=[(1, 2), (0, 4)], dilation=(1, 2)), groups=2)
    horizontal, vertical = FORM.steps(conv, 3)
    assert (horizontal.name, horizontal.weight_shape, horizontal.groups) == ("horizontal", (6, 3, 1, 5), 2)
    assert horizontal.geometry == Geometry.of((1, 5), stride=(1, 3), padding=[(0, 0), (0, 4)], dilation=(1, 2))
    assert (vertical.name, vertical.weight_shape, vertical.groups) == ("vertical", (8, 3, 3, 1), 2)
    assert vertical.geometry == Geometry.of((3, 1), stride=(2, 1), padding=[(1, 2), (0, 0)])


def test_three_axes_are_space_and_then_time():
    space, time = FORM.steps(ConvShape(2, 4, Geometry.of((3, 5, 7), stride=(2, 1, 1))), 6)
    assert (space.weight_shape, time.weight_shape) == ((6, 2, 1, 5, 7), (4, 6, 3, 1, 1))
    assert (space.geometry.stride, time.geometry.stride) == ((1, 1, 1), (2, 1, 1))


@pytest.mark.parametrize(
    ("kernel", "stride", "size", "first_costs"),
    [
        ((3, 3), (1, 1), (10, 10), "same"),
        ((3, 3), (2, 2), (10, 10), "same"),
        ((3, 7), (2, 2), (10, 10), "spatial"),
        ((3, 3), (2, 1), (10, 10), "spatial"),
        ((3, 3), (1, 2), (10, 10), "spatial_reversed"),
    ],
)
def test_the_cheaper_order_depends_on_kernel_and_stride(kernel, stride, size, first_costs):
    conv = ConvShape(8, 8, Geometry.of(kernel, stride, "same"))
    spatial, turned = (chain_macs(FORMS[name].steps(conv, 4), size) for name in ("spatial", "spatial_reversed"))
    cheaper = "same" if spatial == turned else "spatial" if spatial < turned else "spatial_reversed"
    assert cheaper == first_costs


def test_a_kernel_with_one_axis_is_refused():
    assert "has one spatial axis" in str(FORM.why_not(ConvShape(1, 1, Geometry.of((3,)))))
