"""Steps that take the largest number under a window, against PyTorch's."""

from math import inf, nan

import pytest
import torch
import torch.nn.functional as F
from calls import draw
from torch import Tensor

from sepwise.geometry import Geometry
from sepwise.ops import fused_block, native
from sepwise.ops.program import Layer, Program, Step

pytestmark = pytest.mark.skipif(native.PROBLEM is not None, reason=native.PROBLEM or "")


def largest(x: Tensor, layer: Layer) -> Tensor:
    """What PyTorch finds under the windows; padding counts as -inf."""
    assert layer.geometry is not None
    (top, bottom), (left, right) = layer.geometry.pads((x.shape[2], x.shape[3]))
    kernel, stride, dilation = layer.geometry.kernel, layer.geometry.stride, layer.geometry.dilation
    found = F.max_pool2d(F.pad(x, (left, right, top, bottom), value=-inf), kernel, stride, 0, dilation)
    return found if layer.between is None else getattr(F, layer.between)(found.float()).to(x.dtype)


WINDOWS = [
    Geometry.of((2, 2), 2),
    Geometry.of((3, 3), 2, 1),
    Geometry.of((3, 3), 2, ((0, 1), (0, 1))),
    Geometry.of((5, 1), 1, ((2, 2), (0, 0)), dilation=2),
    Geometry.of((1, 1)),
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [(1, 9, 14), (3, 32, 33)], ids=str)
@pytest.mark.parametrize("channels", [1, 5, 32, 70, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_largest_under_a_window(size, channels, dtype, threads):
    batch, height, width = size
    x = draw(batch, channels, height, width, dtype=dtype)
    flat = x.permute(0, 2, 3, 1).view(-1)
    flat[:: 7 * channels + 3], flat[:: 11 * channels + 4], flat[:: 5 * channels + 2] = nan, -inf, inf
    layers = [Layer({}, windows, pooled=True) for windows in WINDOWS]
    steps = [*(Step(0, layer=layer) for layer in layers), Step(1, layer=layers[1])]
    torch.set_num_threads(threads)
    found, wanted = Program([x], steps, [*range(1, 7)])([x]), [largest(x, layer) for layer in layers]
    for y, truth in zip(found, [*wanted, largest(wanted[0], layers[1])], strict=True):
        torch.testing.assert_close(y, truth, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("between", ["relu", "hardswish", "gelu"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)], ids=str)
def test_an_activation_alone(between, dtype, bound):
    x, layer = draw(2, 70, 5, 9, dtype=dtype), Layer({}, Geometry.of((1, 1)), between=between, pooled=True)
    (found,) = Program([x], [Step(0, layer=layer)], [1])([x])
    torch.testing.assert_close(found, getattr(F, between)(x.float()).to(dtype), rtol=bound, atol=bound)


@pytest.mark.parametrize("size", [(1, 9, 14), (2, 40, 300)], ids=str)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (7, 7)], ids=str)
def test_a_stem_in_one_step_with_the_largest_of_what_it_makes(size, kernel):
    """Numbers below zero, too: what is outside the picture is no zero."""
    batch, height, width = size
    x, weight = draw(batch, 3, height, width), draw(20, 3, *kernel)
    geometry = None if kernel == (1, 1) else Geometry.of(kernel, 2, "same")
    for widening, bias in ((None, torch.randn(20) - 9), ("relu", None)):
        weights = {"expand": weight, "expand_bias": bias}
        layer = Layer(weights, Geometry.of((3, 3), 2, 1), widening, expand_geometry=geometry, pooled=True)
        (found,) = Program([x], [Step(0, layer=layer)], [1])([x])
        wide = fused_block(x, weight, bias, activation=widening, geometry=geometry)
        torch.testing.assert_close(found, largest(wide, layer), rtol=1e-5, atol=1e-5)
