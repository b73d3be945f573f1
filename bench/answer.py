"""The inputs of a workload, their answer in float64, and whether an output is close enough to be worth timing.

Plain NumPy, one kernel tap at a time: it shares no code with anything that is timed. The answers of whole networks come
from `bench.prepared`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.workload import Workload

# Largest ||output - answer|| / ||answer|| of each accuracy class. Stock float32 convolutions reach 4e-7, bfloat16 ones
# 4e-3, and three products of bfloat16 halves ("high") 5e-6.
BOUND = {"highest": 1e-6, "high": 1e-5, "bf16": 8e-3}
# The same of whole networks, prepared by `bench.prepared`; docs/benchmarks.md says how far off eager PyTorch is.
NETWORK_BOUND = {"highest": 5e-6, "high": 5e-5, "bf16": 5e-2}
DTYPE = {"highest": "float32", "high": "float32", "bf16": "bfloat16"}
# One element may be off by this many times the bound, measured in the size of the outputs at its pixel and overall.
PEAK = 16.0


@dataclass(frozen=True)
class Tensors:
    """Everything float32; for bfloat16 already rounded to numbers that bfloat16 holds.

    x            (N, H, W, C)
    depthwise    (C * multiplier, k, k)
    pointwise    (O, C * multiplier)
    """

    x: np.ndarray
    depthwise: np.ndarray
    depthwise_bias: np.ndarray
    pointwise: np.ndarray
    bias: np.ndarray


def draw(workload: Workload, dtype: str, x: np.ndarray | None = None, seed: int = 0) -> Tensors:
    """Normal weights, scaled so that outputs have the size of inputs; `x` given, or normal as well."""
    w, random = workload, np.random.default_rng(seed)

    def normal(*size: int, scale: float = 1.0) -> np.ndarray:
        return random.standard_normal(size, dtype=np.float32) * np.float32(scale)

    drawn = (
        normal(w.batch, w.height, w.width, w.channels) if x is None else x,
        normal(w.mid_channels, w.kernel, w.kernel, scale=1 / w.kernel),
        normal(w.mid_channels, scale=0.1),
        normal(w.out_channels, w.mid_channels, scale=w.mid_channels**-0.5),
        normal(w.out_channels, scale=0.1),
    )
    return Tensors(*(round_to_bfloat16(t) for t in drawn)) if dtype == "bfloat16" else Tensors(*drawn)


def round_to_bfloat16(x: np.ndarray) -> np.ndarray:
    """The nearest numbers that bfloat16 holds, ties to even; finite numbers only.

    >>> round_to_bfloat16(np.array([1.0, 1.00390625, 3.0], np.float32)).tolist()
    [1.0, 1.0, 3.0]
    """
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def solve(workload: Workload, tensors: Tensors) -> np.ndarray:
    """The answer (N, H', W', O) in float64."""
    return np.stack([_solve_picture(workload, tensors, picture) for picture in tensors.x])


def _solve_picture(w: Workload, tensors: Tensors, picture: np.ndarray) -> np.ndarray:
    p, s, (height, width) = w.padding, w.stride, w.out_size
    x = np.repeat(np.pad(picture.astype(np.float64), ((p, p), (p, p), (0, 0))), w.multiplier, axis=2)
    taps = tensors.depthwise.astype(np.float64)
    mid = np.broadcast_to(tensors.depthwise_bias.astype(np.float64), (height, width, w.mid_channels)).copy()
    for u in range(w.kernel):
        for v in range(w.kernel):
            mid += x[u : u + (height - 1) * s + 1 : s, v : v + (width - 1) * s + 1 : s] * taps[:, u, v]
    y = activated(mid, w.between) @ tensors.pointwise.astype(np.float64).T + tensors.bias.astype(np.float64)
    return activated(y, w.activation)


def activated(x: np.ndarray, name: str | None) -> np.ndarray:
    """The activations from their definitions."""
    match name:
        case None:
            return x
        case "relu":
            return np.maximum(x, 0)
        case "relu6":
            return np.clip(x, 0, 6)
        case "silu":
            return x / (1 + np.exp(-x))
        case "hardswish":
            return x * np.clip(x + 3, 0, 6) / 6
        case "elu":
            return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
        case "sigmoid":
            return 1 / (1 + np.exp(-x))
        case "hardsigmoid":
            return np.clip(x + 3, 0, 6) / 6
        case "gelu":
            from scipy.special import erf

            return x * 0.5 * (1 + erf(x / np.sqrt(2)))
    raise ValueError(f"no activation is called {name!r}")


@dataclass(frozen=True)
class Verdict:
    """How far an output is from the answer.

    error    ||output - answer|| / ||answer||; NaN when the output holds one
    peak     the worst element: |output - answer| over the root mean squares of the answer at its pixel and overall
    """

    error: float
    peak: float

    def refusal(self, bound: float) -> str | None:
        """Why an output within `bound` was expected and this is none; None when it is one."""
        if self.error <= bound and self.peak <= PEAK * bound:
            return None
        return (
            f"too far from the answer, not timed: error {self.error:.2g}, worst element {self.peak:.2g}; "
            f"expected at most {bound:g} and {PEAK * bound:g}"
        )


def judge(output: np.ndarray, answer: np.ndarray) -> Verdict:
    """Compare an output (N, H', W', O) with the answer.

    >>> judge(np.ones((1, 2, 2, 4)), np.ones((1, 2, 2, 4)))
    Verdict(error=0.0, peak=0.0)
    """
    overall = np.sqrt(np.mean([np.mean(picture**2) for picture in answer]))
    if output.shape != answer.shape or not overall:  # an answer of zeros would let anything small pass
        return Verdict(float("nan"), float("nan"))
    off, total, peak = 0.0, 0.0, 0.0
    for y, wanted in zip(output, answer, strict=True):  # a picture at a time: whole batches of float64 are large
        gap = np.abs(y - wanted)
        size = np.sqrt((wanted**2).mean(axis=2, keepdims=True)) + overall
        off, total = off + float((gap**2).sum()), total + float((wanted**2).sum())
        peak = max(peak, float((gap / size).max()))
        if not np.isfinite(gap).all():
            return Verdict(float("nan"), float("nan"))
    return Verdict(float(np.sqrt(off / total)), peak)
