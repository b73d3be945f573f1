"""pointwise -> depthwise: mix channels, then filter each output on its own. Rank = filters for each output."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from torch import Tensor

from ..geometry import ConvShape, Geometry
from .factors import Rank, one_pixel, shape_of
from .lowrank import best_low_rank


class Blueprint:
    """W[o, i, u] = sum over m < rank of  depthwise[o, m, u] * pointwise[o * rank + m, i].

    For each output channel a matrix (inputs x kernel positions) is cut at `rank` singular values, which is optimal
    in the Frobenius norm (Eckart-Young). Rank 1 is BSConv-U: Haase and Amthor, CVPR 2020, section 3. The pointwise
    step runs before the stride, so at stride s it costs s^2 times the pointwise step of the depthwise form.
    """

    name = "blueprint"

    def why_not(self, conv: ConvShape) -> str | None:
        return one_pixel(conv)

    def full_rank(self, conv: ConvShape) -> int:
        return min(conv.in_channels // conv.groups, prod(conv.geometry.kernel))

    def steps(self, conv: ConvShape, rank: Rank) -> tuple[ConvShape, ...]:
        assert isinstance(rank, int)
        mid = conv.out_channels * rank
        ones = Geometry.of((1,) * conv.geometry.axes)
        return (
            ConvShape(conv.in_channels, mid, ones, conv.groups, "pointwise"),
            ConvShape(mid, conv.out_channels, conv.geometry, conv.out_channels, "depthwise"),
        )

    def matrices(self, weight: Tensor, groups: int) -> Tensor:
        """One matrix for each output channel: (groups, out / groups, in / groups, kernel positions), float64."""
        return weight.double().unflatten(0, (groups, -1)).flatten(3)

    def factor(self, weight: Tensor, groups: int, rank: Rank) -> tuple[Tensor, ...]:
        assert isinstance(rank, int)
        pointwise, depthwise = self.steps(shape_of(weight.shape, groups), rank)
        left, right = best_low_rank(self.matrices(weight, groups), rank)  # (g, out, in, r), (g, out, r, positions)
        return left.mT.reshape(pointwise.weight_shape), right.reshape(depthwise.weight_shape)

    def starts(self, weight: Tensor, groups: int) -> Callable[[Rank], tuple[Tensor, ...]]:
        return lambda rank: self.factor(weight, groups, rank)  # closed, and cheap
