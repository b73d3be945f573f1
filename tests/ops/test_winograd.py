"""Dense convolutions with three taps in a row or a column, two pixels at a time, against PyTorch in float64."""

from typing import Any

import pytest
import torch
from calls import draw
from torch import Tensor

from sepwise.geometry import Geometry
from sepwise.ops import fused_block, native
from sepwise.ops.conv import convolve
from sepwise.ops.program import Layer, Program, Step

pytestmark = pytest.mark.skipif(native.PROBLEM is not None, reason=native.PROBLEM or "")


def computed(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, **more: Any) -> Tensor:
    """By one step; `residual` is added, if there is one."""
    given = [value for value in (x, more.pop("residual", None)) if value is not None]
    layer = Layer({"pointwise": weight, "bias": bias}, geometry, **more)
    return Program(given, [Step(0, len(given) - 1 or -1, layer)], [len(given)])(given)[0]


GEOMETRIES = [
    Geometry.of((1, 3), 1, "same"),
    Geometry.of((3, 1), 1, "same"),
    Geometry.of((3, 3), 1, "same"),
    Geometry.of((3, 1), 1, ((2, 0), (0, 3))),
    Geometry.of((3, 1), 1, ((5, 5), (0, 0))),
    Geometry.of((1, 3), 1, ((1, 0), (4, 0))),
    Geometry.of((1, 3), (2, 1)),
    Geometry.of((5, 3), (2, 1), ((1, 6), (0, 5)), (3, 1)),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("size", [(1, 6, 7), (3, 31, 9), (2, 15, 70), (1, 14, 300)], ids=str)
@pytest.mark.parametrize("channels", [(16, 8), (33, 40), (140, 70)], ids=str)
def test_the_same_numbers(channels, size, geometry):
    batch, height, width = size
    x, bias = draw(batch, channels[0], height, width), torch.randn(channels[1])
    weight = torch.randn(channels[1], channels[0], *geometry.kernel) / (channels[0] * 3) ** 0.5
    truth = convolve(x.double(), weight.double(), bias.double(), geometry)
    residual = draw(*truth.shape)
    found = computed(x, weight, bias, geometry)
    torch.testing.assert_close(found.double(), truth, rtol=0, atol=1e-5)
    added = computed(x, weight, bias, geometry, residual=residual, activation="relu")
    torch.testing.assert_close(added.double(), (truth + residual).relu(), rtol=0, atol=1e-5)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(computed(x, weight, bias, geometry), found)
    assert torch.equal(torch.cat([computed(picture[None], weight, bias, geometry) for picture in x]), found)
    spoilt = weight.clone()
    spoilt[-1, -1] += 1e-3
    assert (convolve(x.double(), spoilt.double(), bias.double(), geometry) - truth).abs().max() > 1e-4  # would be seen


@pytest.mark.parametrize("kernel", [(1, 3), (3, 1), (3, 3)], ids=str)
def test_weights_that_are_kept_serve_other_pictures_and_no_other_strides(kernel):
    weight, steps = torch.randn(24, 20, *kernel), [(1, 1), (2, 1), ((1, 2), 1), ((2, 1), 1), (1, 2)]
    for size in ((9, 9), (1, 9), (9, 1), (1, 1), (8, 8)):
        for stride, dilation in steps:
            x, geometry = draw(1, 20, *size), Geometry.of(kernel, stride, "same", dilation)
            for _ in range(3):  # seen twice, they are kept
                found = fused_block(x, weight, geometry=geometry)
            torch.testing.assert_close(found, convolve(x, weight, None, geometry), rtol=1e-4, atol=1e-4)


def test_kept_weights_of_an_expanding_step_serve_no_other_stride():
    x, expand, second = draw(1, 20, 12, 12), torch.randn(48, 20, 3, 1), torch.randn(16, 48, 1, 3)
    geometry = Geometry.of((1, 3), 1, "same")
    for _ in range(3):
        for stride in (1, 2):
            wide = Geometry.of((3, 1), stride, "same")
            layer = Layer({"expand": expand, "pointwise": second}, geometry, expand_geometry=wide)
            truth = convolve(convolve(x.double(), expand.double(), None, wide), second.double(), None, geometry)
            (found,) = Program([x], [Step(0, layer=layer)], [1])([x])
            torch.testing.assert_close(found.double(), truth, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kernel", [(1, 3), (3, 1), (3, 3)], ids=str)
@pytest.mark.parametrize("channels", [16, 64, 128, 400])
def test_errors_are_those_of_float32(channels, kernel):
    x, weight = draw(1, channels, 40, 40), torch.randn(48, channels, *kernel)
    geometry = Geometry.of(kernel, 1, "same")
    truth = convolve(x.double(), weight.double(), None, geometry)
    ours, other = (f(x, weight, None, geometry).double() - truth for f in (computed, convolve))
    assert ours.norm() < 1.1 * other.norm()


@pytest.mark.parametrize("kernel", [(1, 3), (3, 1), (3, 3)], ids=str)
def test_what_is_not_finite_stays_so_and_stays_near(kernel):
    geometry = Geometry.of(kernel, 1, "same")
    for number in (float("nan"), float("inf")):
        x, weight = draw(1, 16, 9, 12), torch.randn(8, 16, *kernel)
        x[0, 3, 4, 6] = number
        assert torch.equal(
            computed(x, weight, None, geometry).isfinite(), convolve(x, weight, None, geometry).isfinite()
        )
        x[0, 3, 4, 6], weight[5, 2, 0, 0] = 0, number
        found = computed(x, weight, None, geometry).isfinite()
        assert found[:, [0, 1, 2, 3, 4, 6, 7]].all()
        assert not found[:, 5, 1:, 1:].any()


@pytest.mark.parametrize("kernels", [((1, 3), (3, 1)), ((3, 1), (1, 3)), ((3, 3), (3, 3)), ((3, 1), (3, 1))], ids=str)
@pytest.mark.parametrize("size", [(2, 7, 9), (1, 33, 40), (2, 21, 301)], ids=str)
def test_two_in_one_step_are_the_same_to_the_bit(size, kernels):
    """However the rows of the value between are cut."""
    batch, height, width = size
    x, geometries = draw(batch, 18, height, width), [Geometry.of(kernel, 1, "same") for kernel in kernels]
    first, second = torch.randn(48, 18, *kernels[0]), torch.randn(20, 48, *kernels[1])
    one_by_one = computed(computed(x, first, None, geometries[0]), second, None, geometries[1])
    layer = Layer({"expand": first, "pointwise": second}, geometries[1], expand_geometry=geometries[0])
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(Program([x], [Step(0, layer=layer)], [1])([x])[0], one_by_one)
