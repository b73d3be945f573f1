"""Cells of `./run bench models` as rows: ours against the best peer, where our time goes, resident memory. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.answer import NETWORK_BOUND
from bench.candidates import OURS
from bench.compared import RATIOS_HEAD, Compared, Ratios, compare, grouped, ratios_by
from bench.printed import grid, heading, machine_line, machines, of_threads
from sepwise.records import Record

HEADLINE = "fuse"


@dataclass(frozen=True)
class Row(Compared):
    """One network at one batch in one accuracy class on one number of threads; "fuse" is the headline.

    share     of our operators in the time of a call of ours; None when it was not followed
    others    [operator, share] of the costliest others
    """

    network: str
    batch: int
    share: float | None
    others: list[list[Any]]


@dataclass(frozen=True)
class Summary(Ratios):
    """The ratios of all networks in one accuracy class on one number of threads at one batch."""

    accuracy: str
    threads: int
    batch: int


@dataclass(frozen=True)
class Resident:
    """MiB that one candidate keeps in memory: see `bench.memory.measure`; None of all where it was refused."""

    network: str
    batch: int
    dtype: str
    threads: int
    candidate: str
    runtime: float | None
    loading: float | None
    loaded: float | None
    calls: float | None
    refused: str


def rows(cells: Iterable[Record]) -> list[Row]:
    """A row for each cell and accuracy class in it."""
    return [_row(cell, accuracy) for cell in cells for accuracy in cell.about["classes"]]


def _row(cell: Record, accuracy: str) -> Row:
    about, profile = cell.about, cell.about["profile"].get(accuracy, {})
    return Row(
        **vars(compare(cell, accuracy, HEADLINE, NETWORK_BOUND)),
        network=about["network"],
        batch=about["batch"],
        share=profile.get("share"),
        others=profile.get("others", []),
    )


def summaries(found: Iterable[Row]) -> list[Summary]:
    """One for each accuracy class, number of threads and batch."""
    groups = ratios_by(found, _group, _order, lambda row: row.network)
    return [
        Summary(**vars(ratios), accuracy=accuracy, threads=threads, batch=batch)
        for (accuracy, threads, batch), ratios in groups.items()
    ]


def _group(row: Row) -> tuple[str, int, int]:
    return (row.accuracy, row.threads, row.batch)


def _order(key: tuple[str, int, int]) -> tuple[int, int, int]:
    return (list(NETWORK_BOUND).index(key[0]), key[1], key[2])


def residents(cells: Iterable[Record]) -> list[Resident]:
    """Every candidate of every cell of memory; ours first, then by what the calls take."""
    found = []
    for cell in cells:
        place = {name: cell.about[name] for name in ("network", "batch", "dtype", "threads")}
        entries = sorted(
            cell.value.items(), key=lambda item: (item[1]["kind"] != OURS, item[1].get("calls", float("inf")))
        )
        for name, entry in entries:
            numbers = {key: entry.get(key) for key in ("runtime", "loading", "loaded", "calls")}
            found.append(Resident(**place, candidate=name, **numbers, refused=entry.get("refused", "")))
    return found


HEAD = ("network", "fuse", "stock", "best peer", "peer", "peer/fuse", "quartiles", "stock/fuse", "ours", "next", "")
SUMMARY_HEAD = ("class", "threads", "batch", *RATIOS_HEAD)
MEMORY_HEAD = ("network", "candidate", "runtime", "loading", "loaded", "calls", "")
LEGEND = (
    "Milliseconds, medians over rounds. peer/fuse: the fastest peer of the same accuracy over ours, median of the "
    "ratios within rounds. ours: share of our operators in the time of a call; next: the costliest other. loses: a "
    "peer is faster. > stock: more than 3 % slower than eager PyTorch. noisy: to be timed again."
)
MEMORY_LEGEND = (
    "MiB resident in a process of its own: with the runtime imported, most while the network was loaded and called "
    "once, after that, most during five calls more."
)


def render(timed: Sequence[Record], remembered: Sequence[Record], markdown: bool = False) -> str:
    """Everything for a person: for each machine a table for each class, number of threads and batch; then memory."""
    parts = [part for group in machines(timed) for part in _timed(group, markdown)] + [LEGEND] * bool(timed)
    parts += [part for group in machines(remembered) for part in _remembered(group, markdown)]
    parts += [MEMORY_LEGEND] * bool(remembered)
    return "\n\n".join(parts) or "no records yet: ./run bench models"


def to_dict(timed: Sequence[Record], remembered: Sequence[Record]) -> dict[str, Any]:
    """The same for programs."""
    found = rows(timed)
    return {
        "rows": [asdict(row) for row in found],
        "summaries": [asdict(s) for s in summaries(found)],
        "memory": [asdict(r) for r in residents(remembered)],
    }


def _timed(cells: Sequence[Record], markdown: bool) -> list[str]:
    parts, found = [machine_line(cells)], rows(cells)
    for (accuracy, threads, batch), members in grouped(found, _group, _order).items():
        parts.append(heading(f"{accuracy}, {of_threads(threads)}, batch {batch}", markdown))
        parts.append(grid(HEAD, [_cells(row) for row in members], markdown))
        parts += [f"{row.network}, {name}: {why}" for row in members for name, why in row.told]
    summary = [(s.accuracy, str(s.threads), str(s.batch), *s.cells) for s in summaries(found)]
    return [*parts, grid(SUMMARY_HEAD, summary, markdown)]


def _cells(row: Row) -> tuple[str, ...]:
    following = f"{row.others[0][0]} {100 * row.others[0][1]:.0f} %" if row.others else ""
    return (
        row.network,
        _milliseconds(row.times.get(HEADLINE)),
        _milliseconds(row.stock),
        row.peer,
        _milliseconds(row.peer_time),
        f"{row.ratio:.2f}" if row.ratio else "",
        "{:.2f}-{:.2f}".format(*row.quartiles) if row.quartiles else "",
        f"{row.stock_ratio:.2f}" if row.stock_ratio else "",
        f"{100 * row.share:.0f}%" if row.share is not None else "",
        following,
        row.marks,
    )


def _remembered(cells: Sequence[Record], markdown: bool) -> list[str]:
    parts = [machine_line(cells)]
    tables = grouped(residents(cells), lambda r: (r.dtype, r.threads, r.batch), lambda key: key)
    for (dtype, threads, batch), members in tables.items():
        parts.append(heading(f"memory, {dtype}, {of_threads(threads)}, batch {batch}", markdown))
        body = [
            (r.network, r.candidate, *map(_mebibytes, (r.runtime, r.loading, r.loaded, r.calls)), r.refused)
            for r in members
        ]
        parts.append(grid(MEMORY_HEAD, body, markdown))
    return parts


def _milliseconds(us: float | None) -> str:
    return "" if us is None else f"{us / 1e3:.2f}" if us < 1e5 else f"{us / 1e3:.0f}"


def _mebibytes(size: float | None) -> str:
    return "" if size is None else f"{size:.0f}"
