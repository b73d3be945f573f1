"""Both steps at once by the compiled kernels: the channels between never reach memory.

Kernels read and write channels_last: x in another format is converted once, and so is the result. They take the weights
in an order of their own, packed once for as long as the weights stay what they are (csrc/packed_weights.h).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ...errors import UnsupportedError
from .. import native
from . import gradients
from .call import Call, Run
from .schema import operators

DTYPES = (torch.float32, torch.bfloat16)


def why_not(call: Call) -> str | None:
    if native.PROBLEM is not None:
        return native.PROBLEM
    if native.MACHINE.problem is not None:
        raise UnsupportedError(native.MACHINE.problem)  # for "auto" as well: who names instructions wants them
    if call.x.device.type != "cpu":
        return f"x is on {call.x.device}; the compiled kernels run on the CPU"
    if call.dtype not in DTYPES:
        return f"the computation is in {call.dtype}; the compiled kernels know float32 and bfloat16"
    if any(t is not None and t.dtype is torch.float64 for t in (call.depthwise, call.pointwise)):
        return "weights are torch.float64, which autocast leaves as they are"
    if transformed():
        return "a function transform is at work, for which the compiled kernels have no rule"
    return None


def transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is at work."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def prepare(call: Call) -> Run:
    compiling = torch.compiler.is_compiling()
    if compiling:
        launch = operators.separable_conv2d.default
    else:
        launch = _WithGradient.apply if call.needs_grad else _without_gradient
    options, precision = _options(call), call.precision
    cast_to = None if call.x.dtype is call.dtype else call.dtype

    def run(
        x: Tensor, depthwise: Tensor, pointwise: Tensor, bias: Tensor | None, depthwise_bias: Tensor | None
    ) -> Tensor:
        if cast_to is not None:
            x = x.to(cast_to)
        asked = precision or precision_asked(compiling)
        return launch(x, depthwise, pointwise, bias, depthwise_bias, *options, asked)

    return run


def kernel_for(call: Call) -> str:
    """The name of the kernel that would run."""
    tensors = (call.x.to(call.dtype), call.depthwise, call.pointwise, call.bias, call.depthwise_bias)
    return operators.kernel_for(*tensors, *_options(call), call.precision or precision_asked(compiling=False))


def _options(call: Call) -> tuple[Any, ...]:
    (top, bottom), (left, right) = call.pads
    geometry = call.geometry
    return call.between, call.activation, geometry.stride, (top, left, bottom, right), geometry.dilation


def _without_gradient(*inputs: Any) -> Tensor:
    # The layers of the dispatcher that record gradients would find none to record, at twice the price of the call.
    with torch._C._AutoDispatchBelowAutograd():
        return operators.separable_conv2d.default(*inputs)


class _WithGradient(torch.autograd.Function):
    """The gradient that `schema` registers, at a third of the price: no dispatcher in between."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        y = _without_gradient(*inputs)
        gradients.remember(ctx, inputs, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return gradients.backward(ctx, *grads)


@torch.compiler.assume_constant_result
def precision_asked(compiling: bool) -> str:
    """The precision that torch's own setting asks for.

    A compiled program asks once. PyTorch compiles it anew when the setting leaves "highest" or comes back, so it never
    computes less precisely than asked if "medium" counts as "high".
    """
    try:
        asked = torch.get_float32_matmul_precision()
    except RuntimeError:  # settings of single back ends contradict it
        return "highest"
    return "high" if compiling and asked == "medium" else asked
