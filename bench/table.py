"""Cells of the benchmark as rows: ours against the best peer of the same accuracy, and the floor. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from statistics import median
from typing import Any

from bench.answer import BOUND, Verdict
from bench.candidates import OURS
from bench.measuring import HEADLINE, SAME, noisy, quartiles
from bench.workload import Workload
from sepwise.records import Record

STOCK = "eager"
SLOWER = 1.03  # how much longer than the stock pair `auto` may take


@dataclass(frozen=True)
class Row:
    """One workload in one accuracy class on one number of threads; times are medians in microseconds.

    times         implementation of ours -> time
    chose         what "auto" ran
    stock         time of the stock pair: eager PyTorch, channels_last
    peer          the fastest runtime whose output is as accurate as the class asks; "" when there is none
    ratio         time of that peer over time of "auto", within each round, then the median
    quartiles     of the same ratios: low, high
    stock_ratio   the same for the stock pair
    floor         see `bench.roofline`; bound is "compute" or "memory"
    wrong         implementations of ours that gave a wrong answer or broke, with the sentence
    noisy         other programs were in the way; it is timed again by the next run
    """

    shapes: str
    name: str
    shape: str
    count: int
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
    floor: float
    bound: str
    wrong: dict[str, str]
    noisy: bool

    @property
    def loses(self) -> bool:
        return self.ratio is not None and self.ratio < 1.0

    @property
    def slower_than_stock(self) -> bool:
        return self.stock_ratio is not None and self.stock_ratio < 1 / SLOWER


def rows(cells: Iterable[Record]) -> list[Row]:
    """A row for each cell and accuracy class in it."""
    return [_row(cell, accuracy) for cell in cells for accuracy in cell.about["classes"]]


def _row(cell: Record, accuracy: str) -> Row:
    about, entries = cell.about, cell.value
    ours = {name.rpartition(", ")[0]: e for name, e in entries.items() if e.get("ours") == accuracy}
    peers = {
        name: e["rounds_us"]
        for name, e in entries.items()
        if e["runtime"] != OURS and e.get("rounds_us") and not Verdict(e["error"], e["peak"]).refusal(BOUND[accuracy])
    }
    peer = min(peers, key=lambda name: median(peers[name]), default="")
    headline = ours.get(HEADLINE, {}).get("rounds_us")
    stock = entries.get(STOCK, {}).get("rounds_us")
    ratios = within_rounds(peers[peer], headline) if peer and headline else []
    workload = Workload(**about["workload"])
    return Row(
        shapes=about["shapes"],
        name=workload.name,
        shape=workload.shape,
        count=workload.count,
        accuracy=accuracy,
        threads=about["threads"],
        times={name: median(e["rounds_us"]) for name, e in ours.items() if e.get("rounds_us")},
        chose=ours.get(HEADLINE, {}).get("chose", ""),
        stock=median(stock) if stock else None,
        peer=peer,
        peer_time=median(peers[peer]) if peer else None,
        ratio=median(ratios) if ratios else None,
        quartiles=(quartiles(ratios)[0], quartiles(ratios)[2]) if ratios else None,
        stock_ratio=median(within_rounds(stock, headline)) if stock and headline else None,
        floor=about["floor"][accuracy]["us"],
        bound=about["floor"][accuracy]["bound"],
        wrong={n: e["refused"] for n, e in entries.items() if e["runtime"] == OURS and _broken(e, accuracy)},
        noisy=noisy(about),
    )


def _broken(entry: dict[str, Any], accuracy: str) -> bool:
    """A wrong answer of this class, or a dead process; a refusal by `why_not` is neither."""
    refused, promised = entry.get("refused", ""), entry.get("ours", accuracy)
    harmless = not refused or refused == SAME or refused.startswith("UnsupportedError")
    return not harmless and promised == accuracy


def within_rounds(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """How many times longer `slow` took in each round; a change of the clock falls on both and cancels.

    >>> within_rounds([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    [2.0, 2.0, 3.0]
    """
    return [s / f for s, f in zip(slow, fast, strict=True)]


@dataclass(frozen=True)
class Summary:
    """Ratios of many rows: their geometric mean, the smallest, and how many are below one."""

    shapes: str
    accuracy: str
    threads: int
    rows: int
    geomean: float
    minimum: float
    worst: str
    losses: int


def summaries(found: Iterable[Row]) -> list[Summary]:
    """One for each file of shapes, accuracy class and number of threads; rows without a ratio do not count."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in found:
        if row.ratio is not None:
            groups.setdefault((row.shapes, row.accuracy, row.threads), []).append(row)
    return [_summary(key, group) for key, group in sorted(groups.items(), key=lambda item: _order(item[0]))]


def _summary(key: tuple[str, str, int], group: list[Row]) -> Summary:
    ratios = [row.ratio for row in group if row.ratio is not None]
    worst = min(group, key=lambda row: row.ratio or 0.0)
    geomean = exp(sum(map(log, ratios)) / len(ratios))
    return Summary(*key, len(group), geomean, min(ratios), worst.name, sum(row.loses for row in group))


def _order(key: tuple[str, str, int]) -> tuple[Any, ...]:
    return (key[0] != "study", key[0], list(BOUND).index(key[1]), key[2])


COLUMNS = "shape, auto, ran, cpu, stock, best peer, peer, peer/auto, quartiles, floor, auto/floor, "
HEAD = tuple(COLUMNS.split(", "))
SUMMARY_HEAD = ("shapes", "class", "threads", "rows", "geomean", "min", "of", "losses")
LEGEND = (
    "Microseconds, medians over rounds. peer/auto: the fastest peer of the same accuracy over ours, median of the "
    "ratios within rounds. floor: C compute, M memory. loses: a peer is faster. > stock: more than 3 % slower than "
    "eager PyTorch. noisy: others were in the way; to be timed again."
)


def render(cells: Sequence[Record], markdown: bool = False) -> str:
    """Everything for a person: a heading for each machine, a table for each class and number of threads, summaries."""
    parts = []
    machines: dict[tuple[Any, ...], list[Record]] = {}
    for cell in cells:
        place = (cell.machine["processor"], cell.machine["cores"], cell.about["isa"], *cell.about["instructions"])
        machines.setdefault(place, []).append(cell)
    for group in machines.values():
        parts.append(_machine_line(group))
        found = rows(group)
        tables: dict[tuple[str, str, int], list[Row]] = {}
        for row in found:
            tables.setdefault((row.shapes, row.accuracy, row.threads), []).append(row)
        for (shapes, accuracy, threads), members in sorted(tables.items(), key=lambda item: _order(item[0])):
            title = f"{shapes}, {accuracy}, {threads} thread{'s' if threads > 1 else ''}"
            parts.append(f"### {title}\n" if markdown else title)
            parts.append(grid(HEAD, [_cells(row) for row in members], markdown))
            parts += [f"{row.name}, {name}: {why}" for row in members for name, why in row.wrong.items()]
        summary = [_summary_cells(s) for s in summaries(found)]
        parts.append(grid(SUMMARY_HEAD, summary, markdown))
    return "\n\n".join([*parts, LEGEND]) if parts else "no records yet: ./run bench ops"


def to_dict(cells: Sequence[Record]) -> dict[str, Any]:
    """The same for programs."""
    found = rows(cells)
    return {"rows": [asdict(row) for row in found], "summaries": [asdict(s) for s in summaries(found)]}


def _machine_line(cells: Sequence[Record]) -> str:
    first = cells[0]
    commits = sorted({str(cell.machine["commit"]) for cell in cells})
    dates = sorted({cell.about["date"] for cell in cells})
    versions = ", ".join(f"{name} {number}" for name, number in cells[-1].about["versions"].items())
    forced = f", SEPWISE_ISA={first.about['isa']}" if first.about["isa"] else ""
    first_of_all = ", at real-time priority" if any(cell.about["realtime"] for cell in cells) else ""
    disturbed = max(cell.about["strangers"] for cell in cells)
    days = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
    return (
        f"{first.machine['processor']}, {first.machine['cores']} cores, "
        f"{' '.join(first.about['instructions'])}{forced}; {versions}; "
        f"commit {', '.join(commits)}; {days}; other programs took at most {100 * disturbed:.0f} % of a core"
        f"{first_of_all}"
    )


def _cells(row: Row) -> tuple[str, ...]:
    auto = row.times.get(HEADLINE)
    cpu = auto if row.chose == "cpu" else row.times.get("cpu")
    marks = (
        ["loses"] * row.loses
        + ["> stock"] * row.slower_than_stock
        + ["WRONG"] * bool(row.wrong)
        + ["noisy"] * row.noisy
    )
    return (
        f"{row.name} {row.shape}",
        _number(auto),
        row.chose,
        _number(cpu),
        _number(row.stock),
        row.peer,
        _number(row.peer_time),
        f"{row.ratio:.2f}" if row.ratio else "",
        "{:.2f}-{:.2f}".format(*row.quartiles) if row.quartiles else "",
        f"{row.floor:.0f}{row.bound[0].upper()}",
        f"{auto / row.floor:.1f}" if auto else "",
        ", ".join(marks),
    )


def _summary_cells(s: Summary) -> tuple[str, ...]:
    ratios = (f"{s.geomean:.2f}", f"{s.minimum:.2f}")
    return (s.shapes, s.accuracy, str(s.threads), str(s.rows), *ratios, s.worst, str(s.losses))


def _number(us: float | None) -> str:
    return "" if us is None else f"{us:.1f}" if us < 100 else f"{us:.0f}"


NUMBER = re.compile(r"([0-9.]+[CM]?)?")


def grid(head: Sequence[str], body: Sequence[Sequence[str]], markdown: bool) -> str:
    """Columns under their names: numbers to the right, words to the left.

    >>> print(grid(("name", "us"), [("a", "10"), ("bb", "9")], markdown=False))
    name  us
    a     10
    bb     9
    """
    columns = list(zip(head, *body, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [any(column[1:]) and all(NUMBER.fullmatch(cell) for cell in column[1:]) for column in columns]
    left, between, right = ("| ", " | ", " |") if markdown else ("", "  ", "")

    def line(cells: Sequence[str]) -> str:
        padded = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, numeric, strict=True)]
        return (left + between.join(padded) + right).rstrip()

    rule = [("-" * (w - 1) + ":" if n else "-" * w) for w, n in zip(widths, numeric, strict=True)]
    return "\n".join([line(head), *([line(rule)] if markdown else []), *map(line, body)])
