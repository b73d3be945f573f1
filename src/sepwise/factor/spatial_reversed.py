"""1 x N -> N x 1: all spatial axes but the first, then the first. Rank = middle channels for each group."""

from __future__ import annotations

from .spatial import Spatial


class SpatialReversed(Spatial):
    """W[o, i, u, v] = sum over m < rank of  vertical[o, m, u, 0] * horizontal[m, i, 0, v].

    The spatial form with the spatial axes in reverse order, and no other way to write the same: it cuts the matrix
    (inputs * columns x outputs * rows), so a kernel may be near in one order and far in the other, and costs differ
    as soon as kernel, stride or numbers of channels do. In three dimensions 1 x H x W, then D x 1 x 1: space, then
    time, the (2+1)D of Tran et al. 2018, arXiv 1711.11248.
    """

    name = "spatial_reversed"
    last_axis = 0
    step_names = ("horizontal", "vertical")
