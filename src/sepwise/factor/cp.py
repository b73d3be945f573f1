"""pointwise -> depthwise -> pointwise: each middle channel is one outer product. Rank = middle channels a group."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from torch import Tensor

from ..geometry import ConvShape, Geometry
from .canonical import NearlyCanonical, Triple, canonical
from .factors import Rank, cube_of, one_pixel, shape_of


class CP:
    """W[o, i, u] = sum over m < rank of  pointwise_out[o, m] * depthwise[m, u] * pointwise_in[m, i].

    Canonical polyadic decomposition of (outputs x inputs x kernel positions), for each group. No closed answer exists:
    alternating least squares finds a local optimum that is never worse than the best of five starts from singular
    value decompositions. Exact at full rank, the product of the two smallest of outputs, inputs and positions, where
    one pointwise step only copies and scales; a given kernel may be exact below. Lebedev et al. 2015, arXiv 1412.6553.
    """

    name = "cp"

    def why_not(self, conv: ConvShape) -> str | None:
        return one_pixel(conv)

    def full_rank(self, conv: ConvShape) -> int:
        into, out = conv.in_channels // conv.groups, conv.out_channels // conv.groups
        positions = prod(conv.geometry.kernel)
        return min(into * min(out, positions), out * min(into, positions))

    def steps(self, conv: ConvShape, rank: Rank) -> tuple[ConvShape, ...]:
        assert isinstance(rank, int)
        mid = conv.groups * rank
        ones = Geometry.of((1,) * conv.geometry.axes)
        return (
            ConvShape(conv.in_channels, mid, ones, conv.groups, "pointwise_in"),
            ConvShape(mid, mid, conv.geometry, mid, "depthwise"),
            ConvShape(mid, conv.out_channels, ones, conv.groups, "pointwise_out"),
        )

    def factor(self, weight: Tensor, groups: int, rank: Rank) -> tuple[Tensor, ...]:
        assert isinstance(rank, int)
        return self._chain(weight, groups, rank, canonical(cube_of(weight, groups), rank))

    def starts(self, weight: Tensor, groups: int) -> Callable[[Rank], tuple[Tensor, ...]]:
        near = NearlyCanonical(cube_of(weight, groups))

        def start(rank: Rank) -> tuple[Tensor, ...]:
            assert isinstance(rank, int)
            return self._chain(weight, groups, rank, near(rank))

        return start

    def _chain(self, weight: Tensor, groups: int, rank: Rank, found: Triple) -> tuple[Tensor, ...]:
        shapes = [step.weight_shape for step in self.steps(shape_of(weight.shape, groups), rank)]
        out, into, filters = found
        return into.mT.reshape(shapes[0]), filters.mT.reshape(shapes[1]), out.reshape(shapes[2])
