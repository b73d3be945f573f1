"""The meaning of `separable_conv2d` in stock PyTorch: depthwise, between, pointwise, activation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..activations import activate
from ..conv import convolve
from .call import Call, Run


def why_not(call: Call) -> str | None:
    return None


def prepare(call: Call) -> Run:
    geometry, channels, between, activation = call.geometry, call.channels, call.between, call.activation

    def run(
        x: Tensor, depthwise: Tensor, pointwise: Tensor, bias: Tensor | None, depthwise_bias: Tensor | None
    ) -> Tensor:
        mid = convolve(x, depthwise, depthwise_bias, geometry, groups=channels)
        return activate(F.conv2d(activate(mid, between), pointwise, bias), activation)

    return run
