"""Cells of the benchmark as numbers: ours against the best peer of the same accuracy, ratios of many rows. No torch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import median
from typing import Any, TypeVar

from bench.answer import Verdict
from bench.candidates import OURS
from bench.measuring import IDLE_SWITCH, SAME, noisy, quartiles
from sepwise.records import Record

STOCK = "eager"
SLOWER = 1.03  # how much longer than stock PyTorch ours may take


@dataclass(frozen=True)
class Compared:
    """One cell in one accuracy class; times are medians in microseconds.

    times         implementation of ours -> time
    chose         what the headline says it ran
    stock         time of stock PyTorch: eager, channels_last
    peer          the fastest runtime whose output is as accurate as the class asks; "" when there is none
    ratio         time of that peer over time of the headline, within each round, then the median
    quartiles     of the same ratios: low, high
    stock_ratio   the same for stock PyTorch
    wrong         implementations of ours that gave a wrong answer or broke, with the sentence
    missing       peers that were to compete and could not, with the sentence: they broke, or answered wrongly
    noisy         other programs were in the way; it is timed again by the next run
    """

    accuracy: str
    threads: int
    times: dict[str, float]
    chose: str
    stock: float | None
    peer: str
    peer_time: float | None
    ratio: float | None
    quartiles: tuple[float, float] | None
    stock_ratio: float | None
    wrong: dict[str, str]
    missing: dict[str, str]
    noisy: bool

    @property
    def loses(self) -> bool:
        return self.ratio is not None and self.ratio < 1.0

    @property
    def slower_than_stock(self) -> bool:
        return self.stock_ratio is not None and self.stock_ratio < 1 / SLOWER

    @property
    def told(self) -> list[tuple[str, str]]:
        """What a reader of the table must know of single candidates."""
        return [*self.wrong.items(), *self.missing.items()]

    @property
    def marks(self) -> str:
        marks = {"loses": self.loses, "> stock": self.slower_than_stock, "WRONG": self.wrong}
        marks |= {"peers missing": self.missing, "noisy": self.noisy}
        return ", ".join(mark for mark, holds in marks.items() if holds)


def compare(cell: Record, accuracy: str, headline: str, bounds: Mapping[str, float]) -> Compared:
    """A cell in one of its classes.

    headline    the implementation of ours that counts
    bounds      accuracy class -> the largest error
    """
    about, entries = cell.about, cell.value
    ours = {name.rpartition(", ")[0]: e for name, e in entries.items() if e.get("ours") == accuracy}
    peers = {
        name: e["rounds_us"]
        for name, e in entries.items()
        if e["runtime"] != OURS and e.get("rounds_us") and not Verdict(e["error"], e["peak"]).refusal(bounds[accuracy])
    }
    peer = min(peers, key=lambda name: median(peers[name]), default="")
    first = ours.get(headline, {}).get("rounds_us")
    stock = entries.get(STOCK, {}).get("rounds_us")
    ratios = within_rounds(peers[peer], first) if peer and first else []
    return Compared(
        accuracy=accuracy,
        threads=about["threads"],
        times={name: median(e["rounds_us"]) for name, e in ours.items() if e.get("rounds_us")},
        chose=ours.get(headline, {}).get("chose", ""),
        stock=median(stock) if stock else None,
        peer=peer,
        peer_time=median(peers[peer]) if peer else None,
        ratio=median(ratios) if ratios else None,
        quartiles=(quartiles(ratios)[0], quartiles(ratios)[2]) if ratios else None,
        stock_ratio=median(within_rounds(stock, first)) if stock and first else None,
        wrong={n: e["refused"] for n, e in entries.items() if e["runtime"] == OURS and _broken(e, accuracy)},
        missing={n: e["refused"] for n, e in entries.items() if e["runtime"] != OURS and _is_missing(e)},
        noisy=noisy(about),
    )


def _broken(entry: dict[str, Any], accuracy: str) -> bool:
    """A wrong answer of this class, or a dead process; a refusal by `why_not` is neither."""
    refused, promised = entry.get("refused", ""), entry.get("ours", accuracy)
    harmless = not refused or refused == SAME or refused.startswith("UnsupportedError")
    return not harmless and promised == accuracy


def _is_missing(entry: dict[str, Any]) -> bool:
    refused = entry.get("refused", "")
    return bool(refused) and not refused.endswith(IDLE_SWITCH)


def within_rounds(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """How many times longer `slow` took in each round; a change of the clock falls on both and cancels.

    >>> within_rounds([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    [2.0, 2.0, 3.0]
    """
    return [s / f for s, f in zip(slow, fast, strict=True)]


@dataclass(frozen=True)
class Ratios:
    """Ratios of many rows: their geometric mean, the smallest and whose it is, and how many are below one."""

    rows: int
    geomean: float
    minimum: float
    worst: str
    losses: int

    @property
    def cells(self) -> tuple[str, ...]:
        return (str(self.rows), f"{self.geomean:.2f}", f"{self.minimum:.2f}", self.worst, str(self.losses))


RATIOS_HEAD = ("rows", "geomean", "min", "of", "losses")
T = TypeVar("T")
R = TypeVar("R", bound=Compared)
G = TypeVar("G", bound=Hashable)


def grouped(found: Iterable[T], group_of: Callable[[T], G], order_of: Callable[[G], Any]) -> dict[G, list[T]]:
    """Group -> its rows, group after group in order.

    >>> grouped(["apple", "fig", "pear", "plum"], len, lambda length: length)
    {3: ['fig'], 4: ['pear', 'plum'], 5: ['apple']}
    """
    groups: dict[G, list[T]] = {}
    for row in found:
        groups.setdefault(group_of(row), []).append(row)
    return {group: groups[group] for group in sorted(groups, key=order_of)}


def ratios_by(
    found: Iterable[R], group_of: Callable[[R], G], order_of: Callable[[G], Any], name_of: Callable[[R], str]
) -> dict[G, Ratios]:
    """Group -> the ratios of its rows, group after group in order; rows without a ratio do not count."""
    known = [(row.ratio, row) for row in found if row.ratio is not None]
    groups = grouped(known, lambda pair: group_of(pair[1]), order_of)
    return {group: _ratios([(ratio, name_of(row)) for ratio, row in pairs]) for group, pairs in groups.items()}


def _ratios(members: Sequence[tuple[float, str]]) -> Ratios:
    ratios = [ratio for ratio, _ in members]
    geomean = exp(sum(map(log, ratios)) / len(ratios))
    return Ratios(len(members), geomean, *min(members), sum(ratio < 1.0 for ratio in ratios))
