"""What PyTorch has to know of `sepwise::fused_block` besides its kernels: shape and cost.

    fused_block(Tensor x, Tensor? depthwise, Tensor pointwise, Tensor? bias, Tensor? depthwise_bias, Tensor? expand,
                Tensor? expand_bias, Tensor? residual, str? widening, str? between, float? epsilon, str? activation,
                int[2] stride, SymInt[4] padding, int[2] dilation, str precision, str? kernel_name=None) -> Tensor

x float32 or bfloat16 on the CPU in any memory format; weights in any floating dtype; padding (top, left, bottom,
right). Returns channels_last. It has no gradient: `fused_block` takes stock operations where one is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ...geometry import ConvShape, Geometry
from .. import native
from ..separable_conv2d.schema import geometry_of, operators

NAME = "sepwise::fused_block"


def fake(
    x: Tensor,
    depthwise: Tensor | None,
    pointwise: Tensor,
    bias: Tensor | None,
    depthwise_bias: Tensor | None,
    expand: Tensor | None,
    expand_bias: Tensor | None,
    residual: Tensor | None,
    widening: str | None,
    between: str | None,
    epsilon: float | None,
    activation: str | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    precision: str,
    kernel_name: str | None = None,
) -> Tensor:
    """The result without its numbers."""
    kernel = pointwise if depthwise is None else depthwise
    size = geometry_of(kernel.shape, stride, padding, dilation).output_size(x.shape[2:])
    shape = (x.shape[0], pointwise.shape[0], *size)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def flops(
    x: Sequence[int],
    depthwise: Sequence[int] | None,
    pointwise: Sequence[int],
    bias: Any,
    depthwise_bias: Any,
    expand: Sequence[int] | None,
    expand_bias: Any,
    residual: Any,
    widening: Any,
    between: Any,
    epsilon: Any,
    activation: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *rest: Any,
    **more: Any,
) -> int:
    """Two operations for each multiplication of all steps; tensors are given by their shapes."""
    mixing, size, macs = Geometry.of((1, 1)), tuple(x[2:]), 0
    if expand is not None:
        macs += ConvShape(expand[1], expand[0], mixing).macs(size)
    if depthwise is None:
        dense = ConvShape(pointwise[1], pointwise[0], geometry_of(pointwise, stride, padding, dilation))
        macs += dense.macs(size)
    else:
        geometry = geometry_of(depthwise, stride, padding, dilation)
        channels = x[1] if expand is None else expand[0]
        macs += ConvShape(channels, depthwise[0], geometry, groups=channels).macs(size)
        macs += ConvShape(pointwise[1], pointwise[0], mixing).macs(geometry.output_size(size))
    return 2 * x[0] * macs


if native.PROBLEM is None:
    torch.library.register_fake(NAME, fake)
    register_flop_formula(operators.fused_block)(flops)
