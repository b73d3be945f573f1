"""depthwise -> pointwise: filter each channel on its own, then mix channels. Rank = depth multiplier."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from ..geometry import ConvShape, Geometry
from .factors import Rank, shape_of, truncated


class Depthwise:
    """W[o, i, u] = sum over m < rank of  pointwise[o, i * rank + m] * depthwise[i * rank + m, u].

    For each input channel a matrix (outputs x kernel positions) is cut at `rank` singular values, which is optimal
    in the Frobenius norm (Eckart-Young). Network decoupling: Guo et al. 2018, arXiv 1808.05517, section 3.
    """

    name = "depthwise"

    def why_not(self, conv: ConvShape) -> str | None:
        return None

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

    def factor(self, weight: Tensor, groups: int, rank: Rank) -> tuple[Tensor, ...]:
        assert isinstance(rank, int)
        depthwise, pointwise = self.steps(shape_of(weight.shape, groups), rank)
        per_channel = weight.double().unflatten(0, (groups, -1)).transpose(1, 2).flatten(3)  # (g, in, out, positions)
        u, s, v = torch.linalg.svd(per_channel, full_matrices=False)
        left, right = truncated(u, s, v, rank)  # (g, in, out, rank), (g, in, rank, positions)
        mix = left.permute(0, 2, 1, 3)  # (g, out, in, r)
        return right.reshape(depthwise.weight_shape), mix.reshape(pointwise.weight_shape)
