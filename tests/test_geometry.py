"""Output sizes, padding and multiplications against PyTorch and against counting by hand."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from sepwise.errors import ShapeError
from sepwise.geometry import ConvShape, Geometry, chain_macs

small = st.integers(1, 4)


@given(n=st.integers(1, 20), kernel=small, stride=small, dilation=small, low=st.integers(0, 3), high=st.integers(0, 3))
def test_output_size_is_that_of_pytorch(n, kernel, stride, dilation, low, high):
    assume(n + low + high >= dilation * (kernel - 1) + 1)
    geometry = Geometry.of((kernel,), stride, [(low, high)], dilation)
    padded = F.pad(torch.zeros(1, 1, n), (low, high))
    out = F.conv1d(padded, torch.zeros(1, 1, kernel), stride=stride, dilation=dilation)
    assert geometry.output_size((n,)) == tuple(out.shape[2:])


@given(n=st.integers(1, 20), kernel=small, stride=small, dilation=small)
def test_same_is_the_input_over_the_stride_rounded_up_with_the_odd_pixel_at_the_end(n, kernel, stride, dilation):
    geometry = Geometry.of((kernel,), stride, "same", dilation)
    ((low, high),) = geometry.pads((n,))
    assert geometry.output_size((n,)) == ((n + stride - 1) // stride,)
    assert 0 <= high - low <= 1
    assert Geometry.of((kernel,), stride, [(low, high)], dilation).output_size((n,)) == geometry.output_size((n,))


def test_same_leaves_pixels_out_rather_than_padding_negatively():
    assert Geometry.of((1,), 3, "same").pads((7,)) == ((0, 0),)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kernel": (0, 3)}, r"kernel_size=\(0, 3\): expected one integer >= 1, or 2 of them"),
        ({"kernel": (3, 3), "stride": 0}, "stride=0: expected one integer >= 1"),
        ({"kernel": (3, 3), "stride": (1, 2, 3)}, r"stride=\(1, 2, 3\): expected one integer >= 1, or 2 of them"),
        ({"kernel": (3,), "dilation": 1.5}, "dilation=1.5|not iterable"),
        ({"kernel": (3, 3), "padding": -1}, 'padding=-1: give "same", "valid", one integer >= 0, 2 of them or 2'),
        ({"kernel": (3, 3), "padding": "full"}, "padding='full'"),
    ],
)
def test_what_is_no_geometry_is_refused(arguments, sentence):
    with pytest.raises((ShapeError, TypeError), match=sentence):
        Geometry.of(**arguments)


def test_an_empty_output_is_refused():
    with pytest.raises(ShapeError, match=r"would be empty: input \(4,\), padded by \(\(0, 0\),\), is smaller than the"):
        Geometry.of((3,), dilation=2).output_size((4,))
    with pytest.raises(ShapeError, match=r"input has 1 spatial axes \(4,\), the kernel \(3, 3\) has 2"):
        Geometry.of((3, 3)).output_size((4,))


def test_channels_that_groups_do_not_divide_are_refused():
    with pytest.raises(ShapeError, match="conv: in_channels=6 must be a positive multiple of groups=4"):
        ConvShape(6, 8, Geometry.of((3,)), groups=4)


def test_multiplications_counted_by_hand():
    depthwise = ConvShape(3, 3, Geometry.of((5, 5)), groups=3)
    pointwise = ConvShape(3, 256, Geometry.of((1, 1)))
    assert (depthwise.macs((12, 12)), pointwise.macs((8, 8))) == (4_800, 49_152)
    assert chain_macs([depthwise, pointwise], (12, 12)) == 53_952
    assert ConvShape(3, 256, Geometry.of((5, 5))).macs((12, 12)) == 1_228_800


def test_along_keeps_one_axis():
    geometry = Geometry.of((3, 5), (2, 3), [(1, 0), (2, 2)], (1, 2)).along((1,))
    assert geometry == Geometry.of((1, 5), (1, 3), [(0, 0), (2, 2)], (1, 2))
    assert Geometry.of((3, 5), padding="same").along((0,)) == Geometry.of((3, 1), padding="same")
