"""Depth multiplier m as a sum of m separable convolutions of multiplier 1: never holds the m * C channels between.

    y = sum over j < m of  pointwise[:, j::m] @ between(depthwise[j::m] * x)

The same function as the reference. Below float32 each partial sum is rounded, so m - 1 roundings are added.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..activations import activate
from ..conv import convolve
from .call import Call, Run


def why_not(call: Call) -> str | None:
    if call.multiplier == 1:
        return "the depth multiplier is 1, so there is nothing to split"
    return None


def prepare(call: Call) -> Run:
    m, geometry, channels, between, activation = (
        *(call.multiplier, call.geometry, call.channels),
        *(call.between, call.activation),
    )

    def run(
        x: Tensor, depthwise: Tensor, pointwise: Tensor, bias: Tensor | None, depthwise_bias: Tensor | None
    ) -> Tensor:
        def part(j: int) -> Tensor:
            offset = None if depthwise_bias is None else depthwise_bias[j::m]
            mid = convolve(x, depthwise[j::m], offset, geometry, groups=channels)
            return F.conv2d(activate(mid, between), pointwise[:, j::m], bias if j == 0 else None)

        y = part(0)
        for j in range(1, m):
            y = y + part(j)
        return activate(y, activation)

    return run
