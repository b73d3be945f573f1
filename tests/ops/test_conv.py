"""`convolve` and `pad`: any dimension, any padding, any mode, against the oracle."""

from typing import Any

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepwise.errors import ShapeError
from sepwise.geometry import Geometry
from sepwise.ops.conv import PADDING_MODES, convolve, pad


@given(st.data(), st.integers(1, 3), st.sampled_from(PADDING_MODES), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_any_geometry(data: Any, axes: int, mode: str, groups: int) -> None:
    each = st.tuples(*[st.integers(1, 3)] * axes)
    kernel, stride, dilation = data.draw(each), data.draw(each), data.draw(each)
    few = st.integers(0, 2)
    padding = data.draw(st.one_of(st.just("same"), few, st.tuples(*[st.tuples(few, few)] * axes)))
    size = [d * (k - 1) + 3 for k, d in zip(kernel, dilation, strict=True)]  # large enough to be reflected
    torch.manual_seed(data.draw(st.integers(0, 99)))
    x = torch.randn(2, 2 * groups, *size, dtype=torch.float64)
    weight = torch.randn(3 * groups, 2, *kernel, dtype=torch.float64)
    bias = torch.randn(3 * groups, dtype=torch.float64)
    geometry = Geometry.of(kernel, stride, padding, dilation)
    y = convolve(x, weight, bias, geometry, groups, mode)
    expected = oracle.convolution(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups, padding_mode=mode
    )
    assert tuple(y.shape[2:]) == geometry.output_size(size)
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("mode", "most"), [("reflect", 3), ("circular", 4)])
def test_a_small_picture_is_padded_only_so_far(mode: str, most: int) -> None:
    x = torch.arange(4.0).reshape(1, 1, 4)
    assert pad(x, ((most, 0),), mode).shape[2] == 4 + most
    with pytest.raises(ShapeError, match=rf"cannot pad 4 pixels by \({most + 1}, 0\); at most {most} on either side"):
        pad(x, ((most + 1, 0),), mode)


def test_unknown_mode() -> None:
    with pytest.raises(ShapeError, match="padding_mode='mirror': expected one of zeros, reflect, replicate, circular"):
        pad(torch.ones(1, 1, 4), ((1, 1),), "mirror")


def test_empty_output() -> None:
    with pytest.raises(ShapeError, match=r"the output would be empty: input \(2,\)"):
        convolve(torch.ones(1, 1, 2), torch.ones(1, 1, 3), None, Geometry.of((3,)))
    with pytest.raises(ShapeError, match=r"the output would be empty: input \(0,\)"):
        convolve(torch.ones(1, 1, 0), torch.ones(1, 1, 3), None, Geometry.of((3,), padding="same"))
