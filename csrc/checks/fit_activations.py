"""Fits the polynomials of csrc/separable_conv2d/activation.h; prints their float32 coefficients and largest errors.

Remez's exchange algorithm in 40 digits, on the relative error. Rounding a coefficient to float32 moves the error, so
the highest is rounded first and the others are fitted again, and so on; then the neighbours of the first ones are
tried. Needs mpmath, which comes with torch.

    python csrc/checks/fit_activations.py
"""

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import mpmath as mp
import numpy as np

mp.mp.dps = 40


def remez(f: Callable, weight: Callable, low: Any, high: Any, degree: int) -> list:
    """Coefficients, the constant first, of the polynomial with the least largest `weight * |f - p|` on [low, high]."""
    count = degree + 2
    points = chebyshev(low, high, count)
    grid = chebyshev(low, high, 600)
    for _ in range(30):
        system, values = mp.matrix(count, count), mp.matrix(count, 1)
        for i, x in enumerate(points):
            for j in range(degree + 1):
                system[i, j] = x**j
            system[i, degree + 1] = (-1) ** i / weight(x)
            values[i] = f(x)
        coefficients = list(mp.lu_solve(system, values))[:-1]
        peaks: list[tuple] = []  # the largest error between two sign changes
        for x in grid:
            error = weight(x) * (f(x) - mp.polyval(coefficients[::-1], x))
            if not peaks or (peaks[-1][0] > 0) != (error > 0):
                peaks.append((error, x))
            elif abs(error) > abs(peaks[-1][0]):
                peaks[-1] = (error, x)
        while len(peaks) > count:
            peaks.pop(0 if abs(peaks[0][0]) < abs(peaks[-1][0]) else -1)
        sizes = [abs(error) for error, _ in peaks]
        if len(peaks) < count or max(sizes) < 1.001 * min(sizes):
            break
        points = [x for _, x in peaks]
    return coefficients


def remez_rounded(f: Callable, weight: Callable, low: Any, high: Any, degree: int) -> list:
    """The same in float32 coefficients: each is rounded before those below it are fitted."""
    fixed: list = []  # the highest first

    def rest(x: Any) -> Any:
        return f(x) - sum(c * x ** (degree - i) for i, c in enumerate(fixed))

    for below in range(degree, -1, -1):
        highest = remez(rest, weight, low, high, below)[-1]
        fixed.append(mp.mpf(float(np.float32(float(highest)))))
    return fixed[::-1]


def chebyshev(low: Any, high: Any, count: int) -> list:
    return [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * i / (count - 1)) for i in range(count)]


def rounded(coefficients: list, f: Callable, weight: Callable, low: Any, high: Any) -> tuple[float, list[np.float32]]:
    """The best float32 coefficients among the neighbours of the rounded ones, and their error."""
    points = [low + (high - low) * i / 400 for i in range(401)]
    x, truth, weights = (np.array([float(v) for v in vs]) for vs in (points, map(f, points), map(weight, points)))

    def error(candidate: list[np.float32]) -> float:
        return float(
            np.abs(weights * (np.polynomial.polynomial.polyval(x, np.array(candidate, np.float64)) - truth)).max()
        )

    nearest = [np.float32(float(c)) for c in coefficients]
    candidates = []
    for steps in product((-1, 0, 1), repeat=min(5, len(nearest))):
        candidate = list(nearest)
        for i, step in enumerate(steps):
            if step:
                candidate[i] = np.nextafter(nearest[i], np.float32(step * np.inf))
        candidates.append((error(candidate), candidate))
    return min(candidates, key=lambda pair: pair[0])


def exponential_tail(r: Any) -> Any:
    """(e^r - 1 - r) / r^2"""
    return (mp.expm1(r) - r) / r**2 if abs(r) > 1e-8 else mp.mpf(1) / 2 + r / 6


def power(r: Any) -> Any:
    """(2^r - 1) / r"""
    return mp.expm1(r * mp.log(2)) / r if abs(r) > 1e-12 else mp.log(2)


@cache
def bits(t: Any) -> Any:
    """log2 Phi(-t)"""
    return mp.log(mp.ncdf(-t), 2)


def slope(t: Any) -> Any:
    """(log2 Phi(-t) + 1) / t"""
    return (bits(t) + 1) / t if t > 1e-12 else -mp.sqrt(2 / mp.pi) / mp.log(2)


def main() -> None:
    half_of_e, half = mp.log(2) / 2 * mp.mpf("1.002"), mp.mpf("0.501")
    nearest, farthest = mp.mpf("1e-3"), mp.mpf("9.5")
    fits = [
        # the error of r^2 tail(r) counts against e^r, which is about 1; that of r power(r) against 2^r
        ("tail", exponential_tail, lambda r: max(r * r, mp.mpf("1e-6")), -half_of_e, half_of_e, 4),
        ("power", power, lambda r: max(abs(r), nearest) / 2**r, -half, half, 5),
        ("power, for bfloat16", power, lambda r: max(abs(r), nearest) / 2**r, -half, half, 3),
        # log2 Phi(-t) is rounded to float32 in proportion to its size, so its error may grow with it
        ("slope", slope, lambda t: max(t, nearest) / (1 - bits(t)), mp.mpf(0), farthest, 12),
        ("slope, for bfloat16", slope, lambda t: max(t, nearest), mp.mpf(0), farthest, 7),
    ]
    for name, f, weight, low, high, degree in fits:
        error, coefficients = rounded(remez_rounded(f, weight, low, high, degree), f, weight, low, high)
        print(f"{name:20} error {error:.1e}  ", " ".join(float(c).hex().replace("0000000p", "p") for c in coefficients))


if __name__ == "__main__":
    main()
