"""Depth multiplier m as a sum of m separable convolutions of multiplier 1: never holds the m * C channels between.

    y = sum over j < m of  pointwise[:, j::m] @ between(depthwise[j::m] * x)

The same function as the reference. Below float32 each partial sum is rounded, so m - 1 roundings are added.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..activations import activate
from ..conv import convolve
from .call import Call


def why_not(call: Call) -> str | None:
    if call.multiplier == 1:
        return "the depth multiplier is 1, so there is nothing to split"
    return None


def run(call: Call) -> Tensor:
    m = call.multiplier
    y = _part(call, 0, call.bias)
    for j in range(1, m):
        y = y + _part(call, j, None)
    return activate(y, call.activation)


def _part(call: Call, j: int, bias: Tensor | None) -> Tensor:
    m = call.multiplier
    depthwise_bias = None if call.depthwise_bias is None else call.depthwise_bias[j::m]
    mid = convolve(call.x, call.depthwise[j::m], depthwise_bias, call.geometry, groups=call.channels)
    return F.conv2d(activate(mid, call.between), call.pointwise[:, j::m], bias)
