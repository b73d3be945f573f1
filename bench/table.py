"""Cells of `./run bench ops` as rows: ours against the best peer of the same accuracy, and the floor. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.answer import BOUND
from bench.compared import RATIOS_HEAD, Compared, Ratios, compare, grouped, ratios_by
from bench.measuring import HEADLINE
from bench.printed import grid, heading, machine_line, machines, of_threads
from bench.workload import Workload
from sepwise.records import Record


@dataclass(frozen=True)
class Row(Compared):
    """One workload in one accuracy class on one number of threads; "auto" is the headline.

    floor    see `bench.roofline`; bound is "compute" or "memory"
    """

    shapes: str
    name: str
    shape: str
    count: int
    floor: float
    bound: str


def rows(cells: Iterable[Record]) -> list[Row]:
    """A row for each cell and accuracy class in it."""
    return [_row(cell, accuracy) for cell in cells for accuracy in cell.about["classes"]]


def _row(cell: Record, accuracy: str) -> Row:
    workload, floor = Workload(**cell.about["workload"]), cell.about["floor"][accuracy]
    return Row(
        **vars(compare(cell, accuracy, HEADLINE, BOUND)),
        shapes=cell.about["shapes"],
        name=workload.name,
        shape=workload.shape,
        count=workload.count,
        floor=floor["us"],
        bound=floor["bound"],
    )


@dataclass(frozen=True)
class Summary(Ratios):
    """The ratios of one file of shapes in one accuracy class on one number of threads."""

    shapes: str
    accuracy: str
    threads: int


def summaries(found: Iterable[Row]) -> list[Summary]:
    """One for each file of shapes, accuracy class and number of threads."""
    groups = ratios_by(found, _group, _order, lambda row: row.name)
    return [
        Summary(**vars(ratios), shapes=shapes, accuracy=accuracy, threads=threads)
        for (shapes, accuracy, threads), ratios in groups.items()
    ]


def _group(row: Row) -> tuple[str, str, int]:
    return (row.shapes, row.accuracy, row.threads)


def _order(key: tuple[str, str, int]) -> tuple[Any, ...]:
    return (key[0] != "study", key[0], list(BOUND).index(key[1]), key[2])


COLUMNS = "shape, auto, ran, cpu, stock, best peer, peer, peer/auto, quartiles, floor, auto/floor, "
HEAD = tuple(COLUMNS.split(", "))
SUMMARY_HEAD = ("shapes", "class", "threads", *RATIOS_HEAD)
LEGEND = (
    "Microseconds, medians over rounds. peer/auto: the fastest peer of the same accuracy over ours, median of the "
    "ratios within rounds. floor: C compute, M memory. loses: a peer is faster. > stock: more than 3 % slower than "
    "eager PyTorch. noisy: others were in the way; to be timed again."
)


def render(cells: Sequence[Record], markdown: bool = False) -> str:
    """Everything for a person: a heading for each machine, a table for each class and number of threads, summaries."""
    parts = []
    for group in machines(cells):
        parts.append(machine_line(group))
        found = rows(group)
        for (shapes, accuracy, threads), members in grouped(found, _group, _order).items():
            parts.append(heading(f"{shapes}, {accuracy}, {of_threads(threads)}", markdown))
            parts.append(grid(HEAD, [_cells(row) for row in members], markdown))
            parts += [f"{row.name}, {name}: {why}" for row in members for name, why in row.told]
        summary = [(s.shapes, s.accuracy, str(s.threads), *s.cells) for s in summaries(found)]
        parts.append(grid(SUMMARY_HEAD, summary, markdown))
    return "\n\n".join([*parts, LEGEND]) if parts else "no records yet: ./run bench ops"


def to_dict(cells: Sequence[Record]) -> dict[str, Any]:
    """The same for programs."""
    found = rows(cells)
    return {"rows": [asdict(row) for row in found], "summaries": [asdict(s) for s in summaries(found)]}


def _cells(row: Row) -> tuple[str, ...]:
    auto = row.times.get(HEADLINE)
    cpu = auto if row.chose == "cpu" else row.times.get("cpu")
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
        row.marks,
    )


def _number(us: float | None) -> str:
    return "" if us is None else f"{us:.1f}" if us < 100 else f"{us:.0f}"
