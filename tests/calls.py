"""Random tensors for `separable_conv2d` and for programs, and the two implementations that tests compare."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from sepwise.ops import separable_conv2d

fused = partial(separable_conv2d, impl="cpu")
stock = partial(separable_conv2d, impl="reference")


def inputs(channels: int = 5, multiplier: int = 2, out_channels: int = 4, size: int = 7, **kind: Any) -> list[Tensor]:
    """x (2, channels, size, size), depthwise 3 x 3, pointwise, bias and depthwise_bias."""
    mid = channels * multiplier
    shapes = [(2, channels, size, size), (mid, 1, 3, 3), (out_channels, mid, 1, 1), (out_channels,), (mid,)]
    return [torch.randn(*shape, **kind) for shape in shapes]


def draw(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A picture or weight of four axes, in channels_last."""
    return torch.randn(size).to(dtype, memory_format=torch.channels_last)


def call(function: Any, tensors: list[Tensor], **settings: Any) -> Tensor:
    """The result for tensors in the order of `inputs`."""
    *positional, depthwise_bias = tensors
    return function(*positional, depthwise_bias=depthwise_bias, **settings)
