"""A curve against what a network costs, as places in a drawing; a template draws it. Knows no records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log2, log10
from typing import Any

from . import numerals

THIS = "this conversion"
JOINED = {
    THIS: "fitted on pictures",
    "other budget": "fitted on pictures",
    "best at its cost": "the least at each cost",
}
FEWER = "fewer multiplications"
MARGIN = 0.3  # room at the ends of the axis, in doublings
APART = 46  # pixels between two written values, at least


@dataclass(frozen=True)
class Point:
    """One conversion: its cost as a fraction of the dense network's, and its agreement with it, or the harm done."""

    cost: float
    value: float
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
    text_x: float
    text_y: float
    anchor: str
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
    gain: str


def chart(
    points: Sequence[Point], width: int, height: int, what: str = "agreement", gain: str = FEWER, harm: bool = False
) -> Chart:
    """Lay the points out: across, log2 of the cost (cheap at the left); upward, agreement.

    what, gain    what the values are, and what a low cost means
    harm          the values are harm: above 0, smaller is better and higher up, by powers of ten

    >>> drawn = chart([Point(0.25, 0.97, "this conversion"), Point(0.5, 0.99, "other budget")], 400, 300)
    >>> [tick.text for tick in drawn.across], drawn.series[0].name
    (['4×', '2×', '1×'], 'fitted on pictures')
    """
    left, right, top, bottom = 54.0, width - 22.0, 26.0, height - 52.0
    fractions = [p.cost for p in points]
    first, last = log2(min(fractions)) - MARGIN, max(0.0, log2(max(fractions)) + MARGIN)
    scaled = {p: -log10(p.value) if harm else p.value for p in points}
    low, high, step = _range(list(scaled.values())) if not harm else _powers(list(scaled.values()))

    def x(fraction: float) -> float:
        return round(left + (right - left) * (log2(fraction) - first) / (last - first), 1)

    def y(scaled: float) -> float:
        return round(bottom - (bottom - top) * (scaled - low) / (high - low), 1)

    across = tuple(Tick(x(2.0**p), f"{2.0**-p:g}×") for p in range(ceil(first), floor(last) + 1))
    ticks = round((high - low) / step)
    decimals = max(0, -floor(log10(step) + 1e-9))

    def tick(at: float) -> str:
        if not harm:
            return f"{at:.{decimals}f}"
        return f"{10**-at:g}" if at <= 0 else f"{10**-at:.0e}".replace("e-0", "e-")

    upward = tuple(Tick(y(low + i * step), tick(low + i * step)) for i in range(ticks + 1))
    series = []
    for number, (name, members) in enumerate(_series(points).items()):
        is_joined = members[0].kind in JOINED
        places = [(x(p.cost), y(scaled[p]), p) for p in members]
        written = _written([(at, p.kind == THIS) for at, _, p in places])
        marks = tuple(
            Mark(
                x=at,
                y=up,
                kind=p.kind,
                text=numerals.degree(p.value),
                is_this=p.kind == THIS,
                is_written=i in written,
                **_text_place(at, up, p.kind == THIS, is_joined, harm, (top, right, bottom)),
                tip=f"{p.label or p.kind}: {numerals.times(1 / p.cost)} {gain}, {what} {numerals.degree(p.value)}",
            )
            for i, (at, up, p) in enumerate(places)
        )
        series.append(
            Series(
                name, "joined" if is_joined else f"apart{number % 3}", " ".join(f"{m.x},{m.y}" for m in marks), marks
            )
        )
    return Chart(width, height, left, right, top, bottom, across, upward, tuple(series), gain)


def _series(points: Sequence[Point]) -> dict[str, list[Point]]:
    series: dict[str, list[Point]] = {}
    line = next((JOINED[p.kind] for p in points if p.kind in JOINED and p.kind != THIS), JOINED[THIS])
    for p in sorted(points, key=lambda p: (p.kind not in JOINED, p.kind if p.kind not in JOINED else "")):
        series.setdefault(line if p.kind in JOINED else p.kind, []).append(p)
    return {name: sorted(members, key=lambda p: p.cost) for name, members in series.items()}


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


def _powers(values: Sequence[float]) -> tuple[float, float, float]:
    """Lowest and highest power of ten and the step between ticks, for values that are logarithms already."""
    low, high = floor(min(values)), ceil(max(values))
    high = max(high, low + 1)
    return float(low), float(high), 1.0


def _written(places: Sequence[tuple[float, bool]]) -> set[int]:
    """Which values to write beside their marks: this conversion's first, then those with room."""
    order = sorted(range(len(places)), key=lambda i: (not places[i][1], -places[i][0]))
    chosen: list[int] = []
    for i in order:
        if all(abs(places[i][0] - places[j][0]) >= APART for j in chosen):
            chosen.append(i)
    return set(chosen)


def _text_place(
    x: float, y: float, is_this: bool, is_joined: bool, harm: bool, edges: tuple[float, float, float]
) -> dict[str, Any]:
    """Where the value of a mark is written. A line of harm rises to the right: there is room below it at its right."""
    top, right, bottom = edges
    if not harm:
        return {"text_x": x, "text_y": _text_y(y, is_this, is_joined, top, bottom), "anchor": "middle"}
    if x > right - 60:
        return {"text_x": x - 10, "text_y": y - 4, "anchor": "end"}
    return {"text_x": x + 10, "text_y": y + 16, "anchor": "start"}


def _text_y(y: float, is_this: bool, is_above: bool, top: float, bottom: float) -> float:
    """Above its mark for the fitted ones, below for the others, unless that leaves the drawing."""
    above, below = y - (13 if is_this else 10), y + (24 if is_this else 20)
    if is_above:
        return above if above > top - 14 else below
    return below if below < bottom - 4 else above
