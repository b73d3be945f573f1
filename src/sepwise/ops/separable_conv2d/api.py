"""`separable_conv2d`: what it means, which arguments fit, and which implementation runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import ShapeError, UnsupportedError
from ...geometry import Geometry, Padding
from ..activations import check_activation
from ..exporting import exports_stock
from ..memory import memory_format_of
from ..select import Implementation, select
from . import cpu, reference, split
from .call import Call, Run

PRECISIONS = ("highest", "high", "medium")
IMPLEMENTATIONS: dict[str, Implementation] = {"reference": reference, "split": split, "cpu": cpu}

_Tensors = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]
_State = tuple[bool, torch.dtype | None, bool]


def separable_conv2d(
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    bias: Tensor | None = None,
    *,
    depthwise_bias: Tensor | None = None,
    between: str | None = None,
    activation: str | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    precision: str | None = None,
    impl: str = "auto",
) -> Tensor:
    """Filter each channel on its own, then mix channels at each pixel.

        mid[n,m,i,j] = depthwise_bias[m]
                     + sum over u,v of  x[n, m // multiplier, s*i + d*u - p, s*j + d*v - p] * depthwise[m,0,u,v]
        y[n,o,i,j]   = activation(bias[o] + sum over m of  between(mid[n,m,i,j]) * pointwise[o,m,0,0])

    x           (N, C, H, W)    float64, float32, bfloat16 or float16; contiguous or channels_last; N may be 0
    depthwise   (C * multiplier, 1, KH, KW): channel c is filtered by depthwise[c * multiplier + 0, 1, ...]
    pointwise   (O, C * multiplier, 1, 1)
    bias, depthwise_bias          (O,) and (C * multiplier,), or None
    between, activation           None, "relu", "relu6", "silu", "hardswish", "gelu" (exact), "elu" (alpha 1),
                                  "sigmoid" or "hardsigmoid"
    stride, padding, dilation     pixels, one int or (vertical, horizontal), of the depthwise step; padding also
                                  (low, high) pairs, "valid", or "same": H' = ceil(H / s), the odd pixel below and
                                  right, as Keras defines it (at stride 1 also PyTorch)
    precision   the largest error permitted to float32 inputs: "highest" float32 products, "high" and "medium" as
                `torch.set_float32_matmul_precision`, whose present value None takes. The stock implementations
                compute in the dtype of x, except that cuDNN obeys `torch.backends.cudnn.allow_tf32`
    impl        "auto", "cpu" (compiled kernels, channels_last: x in another format is converted, and so is the
                result), "reference" (two stock convolutions) or "split" (multiplier > 1: sum of `multiplier` pairs);
                docs/implementations.md
    returns     (N, O, H', W')  dtype and memory format of x;  H' = (H + 2p - d(KH-1) - 1) // s + 1

    All tensors share one dtype and device (under autocast PyTorch casts, and dtypes may differ). In bfloat16 and
    float16 `mid` is rounded once, and so is each partial sum of "split".
    Depthwise separable convolution: Sifre 2014, Rigid-Motion Scattering, section 6.2; Chollet 2016, arXiv 1610.02357;
    the signature follows Keras's `SeparableConv2D`.
    Raises ShapeError if shapes, dtypes or devices disagree or the output is empty, UnsupportedError for an unknown
    name and if a named `impl` cannot run.

    >>> y = separable_conv2d(torch.ones(1, 2, 4, 4), torch.ones(2, 1, 3, 3), torch.ones(5, 2, 1, 1))
    >>> tuple(y.shape), y[0, 0, 0, 0].item()
    ((1, 5, 2, 2), 18.0)
    """
    tensors = (x, depthwise, pointwise, bias, depthwise_bias)
    options = (between, activation, stride, padding, dilation, precision, impl)
    state = _state(tensors)
    if torch.compiler.is_compiling():
        route = _find_route(tensors, options, state)
    else:
        try:
            key = (
                *(x.shape, x.stride(), x.dtype, x.device, depthwise.shape, depthwise.dtype, depthwise.device),
                *(pointwise.shape, pointwise.dtype, pointwise.device, _kind(bias), _kind(depthwise_bias)),
                *(between, activation, precision, impl, state),
                *(_spelled(stride), _spelled(padding), _spelled(dilation)),
            )
            route = _ROUTES.get(key)
        except TypeError:  # something cannot be a key: a size that is a symbol, an option that is no option
            key = route = None
        if route is None:
            route = _find_route(tensors, options, state)
            if key is not None:
                if len(_ROUTES) >= 4096:
                    _ROUTES.clear()
                _ROUTES[key] = route
    return route.run(*tensors).contiguous(memory_format=route.memory_format)


@dataclass(frozen=True, slots=True)
class _Route:
    """What follows from the arguments of a call but for its numbers: that they fit, and where the call goes."""

    run: Run
    memory_format: torch.memory_format


# Checking and choosing take longer than a small convolution, so each kind of call is checked once.
_ROUTES: dict[Any, _Route] = {}


def _find_route(tensors: _Tensors, options: tuple[Any, ...], state: _State) -> _Route:
    x, depthwise = tensors[:2]
    between, activation, stride, padding, dilation, precision, impl = options
    _check_shapes(*tensors)
    _check_kinds(*tensors)
    check_activation("separable_conv2d", "between", between)
    check_activation("separable_conv2d", "activation", activation)
    if precision is not None and precision not in PRECISIONS:
        raise UnsupportedError(
            f"separable_conv2d: precision={precision!r} is unknown; give None, {', '.join(map(repr, PRECISIONS))}"
        )
    geometry = Geometry.of(depthwise.shape[2:], stride, padding, dilation)
    geometry.output_size(x.shape[2:])  # refuses an empty output
    pads = geometry.pads(x.shape[2:])
    call = Call(*tensors, between, activation, precision, geometry, pads, *state[:2])
    implementation = select("separable_conv2d", IMPLEMENTATIONS, _auto_order(call), call, impl)
    return _Route(implementation.prepare(call), memory_format_of(x))


def _state(tensors: _Tensors) -> _State:
    """What a call depends on besides its arguments: whether it needs a gradient, the dtype of autocast, transforms."""
    needs_grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    return needs_grad, _autocast_dtype(tensors[0]), cpu.transformed()


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    device = "cpu" if x.is_cpu else x.device.type  # spelling a device takes longer than all else here
    if device == "meta":  # torch refuses the question
        return None
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _kind(bias: Tensor | None) -> Any:
    return None if bias is None else (bias.shape, bias.dtype, bias.device)


def _spelled(option: Any) -> Any:
    """The option as a key that tells 1 from True and 1.0, and a list from what it will hold later."""
    return option if type(option) is int else (type(option), repr(option))


def _auto_order(call: Call) -> tuple[str, ...]:
    """The implementations to try, the fastest first."""
    if exports_stock():
        return ("reference",)  # one program serves every size, and runs where sepwise is not installed
    if not call.needs_grad and cpu.why_not(call) is None:
        return ("cpu",)
    # With a gradient to come the kernels' lead is lost: what lies between the steps has to be computed again, and
    # weights are packed anew after each step. Forward and backward, time of "reference" over time of "cpu", ten shapes,
    # 1 thread of an AMD EPYC (Zen 5), channels_last: float32 0.75 to 1.07, bfloat16 0.48 to 0.98.
    return (*_stock_order(call), "cpu")


def _stock_order(call: Call) -> tuple[str, ...]:
    # Time of "reference" over time of "split": medians of interleaved runs, float32, 3x3, 2 threads of a Xeon server,
    # contiguous (channels_last); C = O except in the last row.
    #   N x C x H x W       m=2         m=4
    #   1 x 64 x 160 x 160  1.3 (1.9)   2.9 (2.5)    forward and backward, m=2: 2.3
    #   8 x 256 x 14 x 14   1.9 (1.5)
    #   1 x 128 x 56 x 56   2.2 (1.6)   2.0 (1.1)
    #   1 x 32 x 112 x 112  2.2 (1.5)   2.0 (1.0)
    #   1 x 64 x 56 x 56    1.6 (1.3)   1.1 (0.9)
    #   1 x 256 x 14 x 14   1.2 (1.0)   0.7 (0.8)
    #   1 x 32 x 28 x 28    0.7 (0.7)   0.4 (0.4)
    #   1 x 3 x 160 x 160   m=8, O=64: 0.2 (0.25): adding up m outputs costs more than the channels between
    # Splitting pays once one part is large (400,000 numbers), and only while outputs do not outweigh the channels
    # between.
    out_channels = call.pointwise.shape[0]
    batch, channels, height, width = call.x.shape
    large = batch * channels * height * width >= 400_000
    if large and call.multiplier <= 4 and out_channels <= 2 * channels:
        return ("split", "reference")
    return ("reference", "split")


def _check_shapes(
    x: Tensor, depthwise: Tensor, pointwise: Tensor, bias: Tensor | None, depthwise_bias: Tensor | None
) -> None:
    if x.dim() != 4 or depthwise.dim() != 4 or pointwise.dim() != 4:
        raise _misfit(x, depthwise, pointwise, "all three need four axes", _RULES)
    mid, per_group = depthwise.shape[:2]
    if per_group != 1:
        rule = "depthwise must be (C * multiplier, 1, KH, KW)"
        raise _misfit(x, depthwise, pointwise, f"depthwise reads {per_group} channels at a time, expected 1", rule)
    if x.shape[1] == 0 or mid == 0 or mid % x.shape[1]:
        problem = f"depthwise has {mid} filters for the {x.shape[1]} channels of the input"
        rule = "depthwise.shape[0] must be a positive multiple of x.shape[1]"
        raise _misfit(x, depthwise, pointwise, problem, rule)
    if pointwise.shape[1] != mid:
        problem = f"pointwise mixes {pointwise.shape[1]} channels, depthwise produces {mid}"
        raise _misfit(x, depthwise, pointwise, problem, "pointwise.shape[1] must equal depthwise.shape[0]")
    if tuple(pointwise.shape[2:]) != (1, 1):
        problem = f"pointwise has a kernel of {tuple(pointwise.shape[2:])}, expected (1, 1)"
        raise _misfit(x, depthwise, pointwise, problem, "pointwise must be (O, C * multiplier, 1, 1)")
    for name, tensor, length in (("bias", bias, pointwise.shape[0]), ("depthwise_bias", depthwise_bias, mid)):
        if tensor is not None and tuple(tensor.shape) != (length,):
            problem = f"{name} has shape {tuple(tensor.shape)}, expected ({length},)"
            owner = "pointwise" if name == "bias" else "depthwise"
            raise _misfit(x, depthwise, pointwise, problem, f"{name} must hold {owner}.shape[0] numbers")


_RULES = "x must be (N, C, H, W), depthwise (C * multiplier, 1, KH, KW), pointwise (O, C * multiplier, 1, 1)"


def _misfit(x: Tensor, depthwise: Tensor, pointwise: Tensor, problem: str, rule: str) -> ShapeError:
    parts = f"input {tuple(x.shape)} · depthwise {tuple(depthwise.shape)}"
    if x.dim() == 4 and x.shape[1] > 0 and depthwise.shape[0] % x.shape[1] == 0:
        parts += f" = {x.shape[1]} channels x {depthwise.shape[0] // x.shape[1]}"
    return ShapeError(f"separable_conv2d: {problem}\n    {parts} · pointwise {tuple(pointwise.shape)}\n    {rule}")


def _check_kinds(
    x: Tensor, depthwise: Tensor, pointwise: Tensor, bias: Tensor | None, depthwise_bias: Tensor | None
) -> None:
    others = {"depthwise": depthwise, "pointwise": pointwise, "bias": bias, "depthwise_bias": depthwise_bias}
    if not x.is_floating_point():
        raise ShapeError(f"separable_conv2d: x holds {x.dtype}; expected floating-point numbers, try x.float()")
    casting = _autocast_dtype(x) is not None
    for name, tensor in others.items():
        if tensor is None:
            continue
        if tensor.device != x.device:
            raise ShapeError(
                f"separable_conv2d: x is on {x.device}, {name} on {tensor.device}; move them to one device"
            )
        if tensor.dtype != x.dtype and not casting:
            raise ShapeError(f"separable_conv2d: x is {x.dtype}, {name} is {tensor.dtype}; convert them to one dtype")
