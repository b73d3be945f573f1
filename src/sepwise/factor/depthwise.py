"""depthwise -> pointwise: filter each channel on its own, then mix channels. Rank = depth multiplier."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from torch import Tensor

from ..geometry import ConvShape, Geometry
from .factors import Rank, one_pixel, shape_of
from .lowrank import best_low_rank


class Depthwise:
    """W[o, i, u] = sum over m < rank of  pointwise[o, i * rank + m] * depthwise[i * rank + m, u].

    For each input channel a matrix (outputs x kernel positions) is cut at `rank` singular values, which is optimal
    in the Frobenius norm (Eckart-Young). Network decoupling: Guo et al. 2018, arXiv 1808.05517, section 3.
    """

    name = "depthwise"

    def why_not(self, conv: ConvShape) -> str | None:
        return one_pixel(conv)

    def full_rank(self, conv: ConvShape) -> int:
        return min(conv.out_channels // conv.groups, prod(conv.geometry.kernel))

    def steps(self, conv: ConvShape, rank: Rank) -> tuple[ConvShape, ...]:
        assert isinstance(rank, int)
        mid = conv.in_channels * rank
        ones = Geometry.of((1,) * conv.geometry.axes)
        return (
            ConvShape(conv.in_channels, mid, conv.geometry, conv.in_channels, "depthwise"),
            ConvShape(mid, conv.out_channels, ones, conv.groups, "pointwise"),
        )

    def matrices(self, weight: Tensor, groups: int) -> Tensor:
        """One matrix for each input channel: (groups, in / groups, out / groups, kernel positions), float64."""
        return weight.double().unflatten(0, (groups, -1)).transpose(1, 2).flatten(3)

    def factor(self, weight: Tensor, groups: int, rank: Rank) -> tuple[Tensor, ...]:
        assert isinstance(rank, int)
        depthwise, pointwise = self.steps(shape_of(weight.shape, groups), rank)
        left, right = best_low_rank(self.matrices(weight, groups), rank)  # (g, in, out, r), (g, in, r, positions)
        mix = left.transpose(1, 2)  # (g, out, in, r)
        return right.reshape(depthwise.weight_shape), mix.reshape(pointwise.weight_shape)

    def starts(self, weight: Tensor, groups: int) -> Callable[[Rank], tuple[Tensor, ...]]:
        return lambda rank: self.factor(weight, groups, rank)  # closed, and cheap
