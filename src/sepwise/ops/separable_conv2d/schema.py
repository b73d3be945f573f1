"""What PyTorch has to know of `sepwise::separable_conv2d` besides its kernels: shape, cost and gradient.

    separable_conv2d(Tensor x, Tensor depthwise, Tensor pointwise, Tensor? bias, Tensor? depthwise_bias,
                     str? between, str? activation, int[2] stride, SymInt[4] padding, int[2] dilation,
                     str precision, str? kernel_name=None) -> Tensor

x float32 or bfloat16 on the CPU in any memory format; weights in any floating dtype, converted to that of x when they
are packed; padding (top, left, bottom, right); precision of float32 products: "highest", "high" or "medium";
kernel_name: one of `ops.native.kernels()`, None for the first that can. Returns channels_last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ...geometry import ConvShape, Geometry
from .. import native
from . import gradients

NAME = "sepwise::separable_conv2d"
operators = torch.ops.sepwise


def geometry_of(
    depthwise: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Geometry:
    """The geometry that the operator's numbers spell, for depthwise weights of this shape."""
    top, left, bottom, right = padding
    return Geometry(tuple(depthwise[2:]), tuple(stride), ((top, bottom), (left, right)), tuple(dilation))


def fake(
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    bias: Tensor | None,
    depthwise_bias: Tensor | None,
    between: str | None,
    activation: str | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    precision: str,
    kernel_name: str | None = None,
) -> Tensor:
    """The result without its numbers."""
    geometry = geometry_of(depthwise.shape, stride, padding, dilation)
    size = (x.shape[0], pointwise.shape[0], *geometry.output_size(x.shape[2:]))
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def flops(
    x: Sequence[int],
    depthwise: Sequence[int],
    pointwise: Sequence[int],
    bias: Any,
    depthwise_bias: Any,
    between: Any,
    activation: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *rest: Any,
    **more: Any,
) -> int:
    """Two operations for each multiplication of both steps; tensors are given by their shapes."""
    geometry = geometry_of(depthwise, stride, padding, dilation)
    (batch, channels), size = x[:2], geometry.output_size(x[2:])
    first = ConvShape(channels, depthwise[0], geometry, groups=channels)
    second = ConvShape(pointwise[1], pointwise[0], Geometry.of((1, 1)))
    return 2 * batch * (first.macs(x[2:]) + second.macs(size))


if native.PROBLEM is None:
    torch.library.register_fake(NAME, fake)
    register_flop_formula(operators.separable_conv2d)(flops)
    torch.library.register_autograd(NAME, gradients.backward, setup_context=gradients.remember)
