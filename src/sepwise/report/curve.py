"""The curve of agreement against multiplications as places in a drawing; a template draws it. Knows no records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log2, log10

from . import numerals

THIS = "this conversion"
JOINED = (THIS, "other budget")  # these lie on one line
MARGIN = 0.3  # room at the ends of the axis, in doublings
APART = 46  # pixels between two written values, at least


@dataclass(frozen=True)
class Point:
    """One conversion: its multiplications as a fraction of the dense network's, and how well it agrees."""

    macs_fraction: float
    agreement: float
    kind: str
    label: str = ""


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    x: float
    y: float
    kind: str
    text: str
    is_this: bool
    is_written: bool
    text_y: float
    tip: str


@dataclass(frozen=True)
class Series:
    name: str
    style: str
    line: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Chart:
    """Everything a template needs to draw one curve, in pixels of the drawing."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    across: tuple[Tick, ...]
    upward: tuple[Tick, ...]
    series: tuple[Series, ...]


def chart(points: Sequence[Point], width: int, height: int) -> Chart:
    """Lay the points out: across, log2 of the fraction (cheap at the left); upward, agreement.

    >>> drawn = chart([Point(0.25, 0.97, "this conversion"), Point(0.5, 0.99, "other budget")], 400, 300)
    >>> [tick.text for tick in drawn.across], drawn.series[0].name
    (['4×', '2×', '1×'], 'fitted on pictures')
    """
    left, right, top, bottom = 54.0, width - 22.0, 26.0, height - 52.0
    fractions = [p.macs_fraction for p in points]
    first, last = log2(min(fractions)) - MARGIN, max(0.0, log2(max(fractions)) + MARGIN)
    low, high, step = _range([p.agreement for p in points])

    def x(fraction: float) -> float:
        return round(left + (right - left) * (log2(fraction) - first) / (last - first), 1)

    def y(agreement: float) -> float:
        return round(bottom - (bottom - top) * (agreement - low) / (high - low), 1)

    across = tuple(Tick(x(2.0**p), f"{2.0**-p:g}×") for p in range(ceil(first), floor(last) + 1))
    ticks = round((high - low) / step)
    decimals = max(0, -floor(log10(step) + 1e-9))
    upward = tuple(Tick(y(low + i * step), f"{low + i * step:.{decimals}f}") for i in range(ticks + 1))
    series = []
    for number, (name, members) in enumerate(_series(points).items()):
        is_joined = members[0].kind in JOINED
        places = [(x(p.macs_fraction), y(p.agreement), p) for p in members]
        written = _written([(at, p.kind == THIS) for at, _, p in places])
        marks = tuple(
            Mark(
                x=at,
                y=up,
                kind=p.kind,
                text=numerals.degree(p.agreement),
                is_this=p.kind == THIS,
                is_written=i in written,
                text_y=_text_y(up, p.kind == THIS, is_joined, top, bottom),
                tip=f"{p.label or p.kind}: {numerals.times(1 / p.macs_fraction)} fewer multiplications, "
                f"agreement {numerals.degree(p.agreement)}",
            )
            for i, (at, up, p) in enumerate(places)
        )
        series.append(
            Series(
                name, "joined" if is_joined else f"apart{number % 3}", " ".join(f"{m.x},{m.y}" for m in marks), marks
            )
        )
    return Chart(width, height, left, right, top, bottom, across, upward, tuple(series))


def _series(points: Sequence[Point]) -> dict[str, list[Point]]:
    series: dict[str, list[Point]] = {}
    for p in sorted(points, key=lambda p: (p.kind not in JOINED, p.kind if p.kind not in JOINED else "")):
        series.setdefault("fitted on pictures" if p.kind in JOINED else p.kind, []).append(p)
    return {name: sorted(members, key=lambda p: p.macs_fraction) for name, members in series.items()}


def _range(values: Sequence[float]) -> tuple[float, float, float]:
    """Lowest and highest tick and the step between them; a range that nearly reaches 0 or 1 reaches it."""
    low, high = min(values), max(values)
    least = 0.1 * max(abs(high), 1e-6)  # one point, or points all alike, still get an axis
    if 0 <= low < 0.5 * high:
        low = 0.0
    if high <= 1 < high + max(least, high - low):
        high = 1.0
    if high - low < least:
        low = high - least
    rough = (high - low) / 5
    power = 10.0 ** floor(log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    bottom, top = floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step
    return bottom, top if top > bottom else bottom + step, step


def _written(places: Sequence[tuple[float, bool]]) -> set[int]:
    """Which values to write beside their marks: this conversion's first, then those with room."""
    order = sorted(range(len(places)), key=lambda i: (not places[i][1], -places[i][0]))
    chosen: list[int] = []
    for i in order:
        if all(abs(places[i][0] - places[j][0]) >= APART for j in chosen):
            chosen.append(i)
    return set(chosen)


def _text_y(y: float, is_this: bool, is_above: bool, top: float, bottom: float) -> float:
    """Above its mark for the fitted ones, below for the others, unless that leaves the drawing."""
    above, below = y - (13 if is_this else 10), y + (24 if is_this else 20)
    if is_above:
        return above if above > top - 14 else below
    return below if below < bottom - 4 else above
