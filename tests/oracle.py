"""What convolutions must give, in NumPy and float64, sharing no code with the library; and how far off one may be."""

from itertools import product
from math import erf
from typing import Any

import numpy as np
import torch
from cases import each, pads

NUMPY_MODE = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def convolution(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> np.ndarray:
    """Cross-correlation of (N, C, *size) with (O, C / groups, *kernel), any number of axes, one tap at a time."""
    x, weight = _float64(x), _float64(weight)
    axes = weight.ndim - 2
    stride, dilation = each(stride, axes), each(dilation, axes)
    extents = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    widths = [(0, 0), (0, 0), *pads(padding, x.shape[2:], extents, stride)]
    x = np.pad(x, widths, mode=NUMPY_MODE[padding_mode])  # type: ignore[call-overload]
    size = [(n - e) // s + 1 for n, e, s in zip(x.shape[2:], extents, stride, strict=True)]
    x = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    weight = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    y = np.zeros((x.shape[0], groups, weight.shape[1], *size))
    for tap in product(*(range(k) for k in weight.shape[3:])):
        window = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilation, size, stride, strict=True)
        )
        y += np.einsum("ngc...,goc->ngo...", x[(..., *window)], weight[(..., *tap)])
    y = y.reshape(y.shape[0], groups * y.shape[2], *size)
    return y if bias is None else y + _float64(bias).reshape(-1, *[1] * axes)


def separable(
    x: Any,
    depthwise: Any,
    pointwise: Any,
    bias: Any = None,
    *,
    depthwise_bias: Any = None,
    between: str | None = None,
    activation: str | None = None,
    mid_dtype: torch.dtype = torch.float64,
    **geometry: Any,
) -> np.ndarray:
    """Depthwise step, `between`, rounding to `mid_dtype`, pointwise step, `activation`."""
    mid = activated(convolution(x, depthwise, depthwise_bias, groups=x.shape[1], **geometry), between)
    return activated(convolution(torch.from_numpy(mid).to(mid_dtype), pointwise, bias), activation)


def activated(x: np.ndarray, name: str | None) -> np.ndarray:
    """The activations from their definitions: silu x * sigmoid(x), gelu x * Phi(x), hardswish x * relu6(x + 3) / 6."""
    match name:
        case None:
            return x
        case "relu":
            return np.where(x > 0, x, 0)
        case "relu6":
            return np.clip(x, 0, 6)
        case "silu":
            return x / (1 + np.exp(-x))
        case "hardswish":
            return x * np.clip(x + 3, 0, 6) / 6
        case "gelu":
            return x * 0.5 * (1 + np.vectorize(erf, otypes=[float])(x / np.sqrt(2)))
        case "elu":
            return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
        case "sigmoid":
            return 1 / (1 + np.exp(-x))
        case "hardsigmoid":
            return np.clip(x + 3, 0, 6) / 6
    raise ValueError(name)


SLOPES: dict[str | None, float] = {"sigmoid": 1 / 4, "hardsigmoid": 1 / 6}


def error_budget(
    x: Any,
    depthwise: Any,
    pointwise: Any,
    bias: Any,
    dtype: torch.dtype,
    roundings: int,
    unit: float | None = None,
    **rest: Any,
) -> np.ndarray:
    """Six standard deviations of rounding noise, for each output element.

        6 * (roundings * unit + sqrt(terms) * acc) * sqrt(sum of squared products) + unit * |answer|

    Rounding errors have random signs, so they grow with the root of the sums. `unit` is the precision of `dtype` unless
    given, `acc` that of the sums (float32, or float64 for float64); `roundings` counts the values kept in the precision
    `unit` on the way to the sum. The activations' slopes are at most 1.13, so the noise before them bounds the noise
    after; where the last one is nowhere as steep, its slope makes the bound narrower.
    """
    unit = torch.finfo(dtype).eps if unit is None else unit
    acc = min(unit, torch.finfo(torch.float32).eps)
    terms = int(np.prod(depthwise.shape[1:])) + pointwise.shape[1]
    answer = separable(x, depthwise, pointwise, bias, **rest)
    noise = 6 * (roundings * unit + terms**0.5 * acc) * spread(x, depthwise, pointwise, bias, **rest)
    return noise * SLOPES.get(rest.get("activation"), 1) + unit * np.abs(answer)


def spread(x: Any, depthwise: Any, pointwise: Any, bias: Any, depthwise_bias: Any, **rest: Any) -> np.ndarray:
    """The root of the sum of all squared products: how far sums of these sizes and random signs lie from zero."""
    linear = {name: rest[name] for name in ("stride", "padding", "dilation")}
    squares = [None if t is None else _float64(t) ** 2 for t in (x, depthwise, pointwise, bias, depthwise_bias)]
    return np.sqrt(separable(*squares[:4], depthwise_bias=squares[4], **linear))


def _float64(tensor: Any) -> np.ndarray:
    return tensor.detach().double().numpy() if isinstance(tensor, torch.Tensor) else np.asarray(tensor, np.float64)
