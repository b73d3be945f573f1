"""Fits the polynomials of csrc/separable_conv2d/activation.h; prints their float32 coefficients and largest errors.

Remez's exchange algorithm in 40 digits, on the relative error; then each coefficient is rounded to float32, and the
neighbours of the first ones are tried, because rounding moves the error. Needs mpmath, which comes with torch.

    python csrc/checks/fit_activations.py
"""

from collections.abc import Callable
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


def normal_middle(s: Any) -> Any:
    """(Phi(x) - 1/2) / x, s = x^2"""
    return (mp.ncdf(mp.sqrt(s)) - mp.mpf(1) / 2) / mp.sqrt(s) if s > 1e-12 else (1 - s / 6) / mp.sqrt(2 * mp.pi)


def normal_tail(u: Any) -> Any:
    """e^(t^2 / 2) Phi(-t) (t + 3), u = (t - 3) / (t + 3)"""
    t = 3 * (1 + u) / (1 - u)
    return mp.exp(t * t / 2) * mp.ncdf(-t) * (t + 3)


def main() -> None:
    half = mp.log(2) / 2 * mp.mpf("1.002")
    fits = [
        # the error of r^2 tail(r) counts against e^r, which is about 1
        ("tail", exponential_tail, lambda r: max(r * r, mp.mpf("1e-6")), -half, half, 4),
        ("middle", normal_middle, lambda s: 1 / normal_middle(s), mp.mpf(0), mp.mpf(1), 5),
        ("g", normal_tail, lambda u: 1 / normal_tail(u), mp.mpf("-0.5"), mp.mpf("11.5") / mp.mpf("17.5"), 7),
    ]
    for name, f, weight, low, high, degree in fits:
        error, coefficients = rounded(remez(f, weight, low, high, degree), f, weight, low, high)
        print(f"{name:7} error {error:.1e}  ", " ".join(float(c).hex().replace("0000000p", "p") for c in coefficients))


if __name__ == "__main__":
    main()
