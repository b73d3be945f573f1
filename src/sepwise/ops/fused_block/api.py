"""`fused_block`: what it means, in stock operations, and when the compiled kernels compute it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...geometry import Geometry
from .. import native
from ..activations import activate
from ..conv import convolve
from ..exporting import exports_stock
from ..memory import memory_format_of
from ..separable_conv2d.cpu import DTYPES, precision_asked, transformed
from .schema import operators


def fused_block(
    x: Tensor,
    pointwise: Tensor,
    bias: Tensor | None = None,
    *,
    depthwise: Tensor | None = None,
    depthwise_bias: Tensor | None = None,
    expand: Tensor | None = None,
    expand_bias: Tensor | None = None,
    residual: Tensor | None = None,
    widening: str | None = None,
    between: str | None = None,
    epsilon: float | None = None,
    activation: str | None = None,
    geometry: Geometry | None = None,
    precision: str | None = None,
) -> Tensor:
    """A depthwise and a pointwise step, and what mobile networks put around them, each where it is given.

        wide = widening(expand_bias + expand @ x)                                   at each pixel; else x
        mid  = between(depthwise_bias + depthwise * wide)                           each channel; else wide
        mid  = (mid - mean) / sqrt(variance + epsilon)                              over the channels of a pixel
        y    = activation(bias + pointwise @ mid + residual)                        at each pixel

    x           (N, C, H, W)    float32 or bfloat16 for the compiled kernels, any floating dtype else; channels_last
                                runs without a copy
    expand      (E, C, 1, 1), only before a depthwise step; padding surrounds `wide`, as in the networks
    depthwise   (E * multiplier, 1, KH, KW), laid by `geometry`
    pointwise   (O, E * multiplier, 1, 1); without a depthwise step also (O, C, KH, KW), laid by `geometry`: a dense
                convolution, which cannot be normalized
    biases      one number for each channel of their step, or None
    residual    (N, O, H', W')
    widening, between, activation    names as of `separable_conv2d`, or None
    epsilon     None: mid is not normalized. The scale and the shift of a layer norm belong into pointwise and bias
    precision   of float32 products: "highest", "high" or "medium"; None: as `torch.get_float32_matmul_precision()`
    returns     (N, O, H', W')  dtype and memory format of x

    The compiled kernels, which keep everything between the steps in the cache of one core, run where no gradient, no
    autocast and no function transform is at work; else stock operations do. In bfloat16, wide, mid and y are rounded
    once each, mid once more where it is normalized.
    Inverted residual: Sandler et al. 2018, arXiv 1801.04381, section 3.3; ConvNeXt's block: Liu et al. 2022,
    arXiv 2201.03545, figure 4.

    >>> y = fused_block(torch.ones(1, 2, 4, 4), torch.ones(3, 2, 1, 1), residual=torch.ones(1, 3, 4, 4))
    >>> y[0, 0, 0, 0].item()
    3.0
    """
    weights = (depthwise, pointwise, bias, depthwise_bias, expand, expand_bias)
    if not runs_compiled(x, residual, *weights):
        return stock_operations(
            x,
            pointwise,
            bias,
            depthwise=depthwise,
            depthwise_bias=depthwise_bias,
            expand=expand,
            expand_bias=expand_bias,
            residual=residual,
            widening=widening,
            between=between,
            epsilon=epsilon,
            activation=activation,
            geometry=geometry,
        )
    stride, padding, dilation = (1, 1), (0, 0, 0, 0), (1, 1)
    if geometry is not None:
        (top, bottom), (left, right) = geometry.pads(x.shape[2:])
        stride, padding, dilation = geometry.stride, (top, left, bottom, right), geometry.dilation
    compiling = torch.compiler.is_compiling()
    asked = precision or precision_asked(compiling)
    options = (residual, widening, between, epsilon, activation, stride, padding, dilation, asked)
    if compiling:
        y = operators.fused_block.default(x, *weights, *options)
    else:
        with torch._C._AutoDispatchBelowAutograd():  # there is no gradient to record
            y = operators.fused_block.default(x, *weights, *options)
    return y.contiguous(memory_format=memory_format_of(x))


def runs_compiled(x: Tensor, *others: Tensor | None) -> bool:
    """Whether the compiled kernels would compute a block of these tensors, here and now."""
    if native.PROBLEM is not None or x.device.type != "cpu" or x.dtype not in DTYPES or exports_stock():
        return False
    tensors = [t for t in (x, *others) if t is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return False
    return not torch.is_autocast_enabled("cpu") and all(t.dtype == x.dtype for t in tensors) and not transformed()


def stock_operations(
    x: Tensor,
    pointwise: Tensor,
    bias: Tensor | None = None,
    *,
    depthwise: Tensor | None = None,
    depthwise_bias: Tensor | None = None,
    expand: Tensor | None = None,
    expand_bias: Tensor | None = None,
    residual: Tensor | None = None,
    widening: str | None = None,
    between: str | None = None,
    epsilon: float | None = None,
    activation: str | None = None,
    geometry: Geometry | None = None,
) -> Tensor:
    """What `fused_block` means, in stock operations of PyTorch."""
    if expand is not None:
        x = activate(F.conv2d(x, expand, expand_bias), widening)
    dense = geometry if depthwise is None else None
    if depthwise is not None:
        assert geometry is not None
        x = activate(convolve(x, depthwise, depthwise_bias, geometry, groups=x.shape[1]), between)
    if epsilon is not None:
        x = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), eps=epsilon).permute(0, 3, 1, 2)
    y = F.conv2d(x, pointwise, bias) if dense is None else convolve(x, pointwise, bias, dense)
    return activate(y if residual is None else y + residual, activation)
