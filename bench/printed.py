"""Columns, and the line that says on which machine, with which packages and how quietly something was measured."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from sepwise.records import Record

NUMBER = re.compile(r"([0-9.]+[CM%]?)?")


def machines(cells: Iterable[Record]) -> list[list[Record]]:
    """The cells of each machine."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for cell in cells:
        place = (cell.machine["processor"], cell.machine["cores"], cell.about["isa"], *cell.about["instructions"])
        found.setdefault(place, []).append(cell)
    return list(found.values())


def machine_line(cells: Sequence[Record]) -> str:
    first = cells[0]
    commits = sorted({str(cell.machine["commit"]) for cell in cells})
    dates = sorted({cell.about["date"] for cell in cells})
    versions = ", ".join(f"{name} {number}" for name, number in cells[-1].about["versions"].items())
    forced = f", SEPWISE_ISA={first.about['isa']}" if first.about["isa"] else ""
    first_of_all = ", at real-time priority" if any(cell.about.get("realtime") for cell in cells) else ""
    strangers = [cell.about["strangers"] for cell in cells if "strangers" in cell.about]
    disturbed = f"; other programs took at most {100 * max(strangers):.0f} % of a core" if strangers else ""
    days = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
    return (
        f"{first.machine['processor']}, {first.machine['cores']} cores, "
        f"{' '.join(first.about['instructions'])}{forced}; {versions}; "
        f"commit {', '.join(commits)}; {days}{disturbed}{first_of_all}"
    )


def heading(title: str, markdown: bool) -> str:
    return f"### {title}\n" if markdown else title


def of_threads(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


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
