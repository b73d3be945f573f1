"""The gradient of the operator, composed of stock operations. What lies between the steps is computed again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..activations import activate

aten = torch.ops.aten

# The gradient before an activation, of the gradient after it, its input and its output. The first four need only the
# output, so that the input need not be computed again.
OF_OUTPUT = ("relu", "relu6", "elu", "sigmoid")
BACKWARD: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "relu": lambda grad, before, after: aten.threshold_backward(grad, after, 0),
    "relu6": lambda grad, before, after: aten.hardtanh_backward(grad, after, 0, 6),
    "elu": lambda grad, before, after: aten.elu_backward(grad, 1, 1, 1, True, after),
    "sigmoid": lambda grad, before, after: aten.sigmoid_backward(grad, after),
    "silu": lambda grad, before, after: _silu_backward(grad, before),
    "hardswish": lambda grad, before, after: aten.hardswish_backward(grad, before),
    "gelu": lambda grad, before, after: aten.gelu_backward(grad, before),
    "hardsigmoid": lambda grad, before, after: aten.hardsigmoid_backward(grad, before),
}


def remember(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    """Save what `backward` needs: the operator's tensors, and its result where the last activation can use it."""
    *tensors, between, activation, stride, padding, dilation = inputs[:10]
    ctx.save_for_backward(*tensors, output if activation in OF_OUTPUT else None)
    ctx.settings = (between, activation, stride, padding, dilation)
    ctx.inputs = len(inputs)


def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of x, depthwise, pointwise, bias and depthwise_bias, each only if it is asked for."""
    needs = ctx.needs_input_grad[:5]
    with torch.autocast(grad.device.type, enabled=False):  # dtypes were settled in the forward pass
        found = _backward(needs, grad, *ctx.saved_tensors, *ctx.settings)
    return (*found, *[None] * (ctx.inputs - 5))


def _backward(
    needs: Sequence[bool],
    grad: Tensor,
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    bias: Tensor | None,
    depthwise_bias: Tensor | None,
    y: Tensor | None,
    between: str | None,
    activation: str | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[Tensor | None]:
    given = (x, depthwise, pointwise, bias, depthwise_bias)
    filters, mixing = depthwise.to(x.dtype), pointwise.to(x.dtype)  # autocast leaves weights to the operator
    top, left, bottom, right = padding
    # Sizes of traced programs are symbols, and to compare them would tie the program to the answer.
    even = all(isinstance(p, int) for p in padding) and top == bottom and left == right
    around = x if even else F.pad(x, (left, right, top, bottom))
    first = (stride, [top, left] if even else [0, 0], dilation, x.shape[1])

    from_output = activation is None or activation in OF_OUTPUT
    if needs[2] or between is not None or not from_output:
        before = _conv(around, filters, depthwise_bias, *first)
        mid = activate(before, between)
    else:
        before = mid = grad.new_empty((grad.shape[0], mixing.shape[1], *grad.shape[2:]))  # only its size is asked for
    if activation is not None:
        last = y if from_output else _conv(mid, mixing, bias, *_POINTWISE)
        assert last is not None
        grad = BACKWARD[activation](grad, last, last)
    through = needs[0] or needs[1] or needs[4]
    grad_mid, grad_pointwise, grad_bias = _conv_backward(grad, mid, mixing, [through, needs[2], needs[3]], *_POINTWISE)

    grad_x = grad_depthwise = grad_depthwise_bias = None
    if through:
        if between is not None:
            grad_mid = BACKWARD[between](grad_mid, before, mid)
        mask = [needs[0], needs[1], needs[4]]
        grad_x, grad_depthwise, grad_depthwise_bias = _conv_backward(grad_mid, around, filters, mask, *first)
        if needs[0] and not even:
            grad_x = grad_x[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    found = (grad_x, grad_depthwise, grad_pointwise, grad_bias, grad_depthwise_bias)
    return [_as(g, t) if need else None for need, g, t in zip(needs, found, given, strict=True)]


def _as(grad: Tensor | None, tensor: Tensor | None) -> Tensor:
    assert grad is not None
    assert tensor is not None
    return grad.to(tensor.dtype)


def _silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return aten.silu_backward(grad, x)
    gate = x.sigmoid()  # PyTorch's own has no gradient in turn
    return grad * gate * (1 + x * (1 - gate))


_POINTWISE: tuple[Any, ...] = ([1, 1], [0, 0], [1, 1], 1)


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    bias = None if bias is None else bias.to(x.dtype)
    return aten.convolution(x, weight, bias, stride, padding, dilation, False, [0, 0], groups)


def _conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, mask: list[bool], stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    sizes = [weight.shape[0]]
    return aten.convolution_backward(grad, x, weight, sizes, stride, padding, dilation, False, [0, 0], groups, mask)
