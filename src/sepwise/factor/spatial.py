"""N x 1 -> 1 x N: all spatial axes but the last, then the last. Rank = middle channels for each group."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from torch import Tensor

from ..geometry import ConvShape
from .factors import Rank, one_pixel, shape_of
from .lowrank import best_low_rank


class Spatial:
    """W[o, i, u, v] = sum over m < rank of  horizontal[o, m, 0, v] * vertical[m, i, u, 0].

    For each group one matrix (inputs * rows x outputs * columns) is cut at `rank` singular values, which is optimal
    in the Frobenius norm (Eckart-Young). Jaderberg et al. 2014, arXiv 1405.3866, scheme 2. In three dimensions
    D x H x 1, then 1 x 1 x W. With groups = in_channels the same cut splits depthwise kernels, channel by channel.
    """

    name = "spatial"
    last_axis = -1  # the axis that the second step filters, among the spatial ones
    step_names = ("vertical", "horizontal")

    def why_not(self, conv: ConvShape) -> str | None:
        if conv.geometry.axes < 2:
            return f"a kernel {conv.geometry.kernel} has one spatial axis; to separate space it takes two or three"
        return one_pixel(conv)

    def full_rank(self, conv: ConvShape) -> int:
        columns = conv.geometry.kernel[self.last_axis]
        rows = prod(conv.geometry.kernel) // columns
        return min(conv.in_channels // conv.groups * rows, conv.out_channels // conv.groups * columns)

    def steps(self, conv: ConvShape, rank: Rank) -> tuple[ConvShape, ...]:
        assert isinstance(rank, int)
        mid, axes = conv.groups * rank, list(range(conv.geometry.axes))
        last = axes.pop(self.last_axis)
        first_name, second_name = self.step_names
        return (
            ConvShape(conv.in_channels, mid, conv.geometry.along(axes), conv.groups, first_name),
            ConvShape(mid, conv.out_channels, conv.geometry.along((last,)), conv.groups, second_name),
        )

    def matrices(self, weight: Tensor, groups: int) -> Tensor:
        """One matrix for each group: (groups, in / groups * rows, out / groups * columns), float64."""
        grouped = weight.double().unflatten(0, (groups, -1))  # (g, out, in, *kernel)
        last = range(3, grouped.dim())[self.last_axis]
        grouped = grouped.movedim(last, -1).flatten(3, -2)  # (g, out, in, rows, columns)
        return grouped.permute(0, 2, 3, 1, 4).flatten(3, 4).flatten(1, 2)

    def factor(self, weight: Tensor, groups: int, rank: Rank) -> tuple[Tensor, ...]:
        assert isinstance(rank, int)
        first, second = self.steps(shape_of(weight.shape, groups), rank)
        left, right = best_low_rank(self.matrices(weight, groups), rank)  # (g, in * rows, r), (g, r, out * columns)
        columns = right.unflatten(2, (-1, max(second.geometry.kernel))).transpose(1, 2)  # (g, out, r, columns)
        return left.mT.reshape(first.weight_shape), columns.reshape(second.weight_shape)

    def starts(self, weight: Tensor, groups: int) -> Callable[[Rank], tuple[Tensor, ...]]:
        return lambda rank: self.factor(weight, groups, rank)  # closed, and cheap
