"""The meaning of `separable_conv2d` in stock PyTorch: depthwise, between, pointwise, activation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..activations import activate
from ..conv import convolve
from .call import Call


def why_not(call: Call) -> str | None:
    return None


def run(call: Call) -> Tensor:
    mid = convolve(call.x, call.depthwise, call.depthwise_bias, call.geometry, groups=call.channels)
    y = F.conv2d(activate(mid, call.between), call.pointwise, call.bias)
    return activate(y, call.activation)
