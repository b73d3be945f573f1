"""How anything measured is written down: append-only JSON lines. Knows no torch and no other room but files."""

import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Any

from .errors import SepwiseError


@dataclass(frozen=True)
class Record:
    """One measured or computed fact.

    what       dotted name of the quantity, e.g. "agreement.f1"
    value      the number, text or table itself
    unit       its unit; "" for a pure number
    n          how many measurements stand behind it
    spread     their spread, in the unit of value (say in `about` which); None when there is none
    about      everything else needed to read it: which model, picture, method
    machine    processor and threads, commit: filled in by `here`
    """

    what: str
    value: Any
    unit: str = ""
    n: int = 1
    spread: float | None = None
    about: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)


def here(what: str, value: Any, **rest: Any) -> Record:
    """A Record stamped with this machine and, in a checkout, its commit."""
    return Record(what, value, machine=machine(), **rest)


@cache
def machine() -> dict[str, Any]:
    """Processor name, usable cores and the commit measured, if the code runs from a checkout."""
    return {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "commit": _commit()}


def append(path: str | os.PathLike[str], records: Iterable[Record]) -> None:
    """Add records to a file of JSON lines, one line each: all of them, or none where the disk is full.

    Several processes may append to one file. A line that somebody else left unfinished is ended first: it is damaged,
    the new ones are not.
    """
    lines = "".join(json.dumps(asdict(r)) + "\n" for r in records).encode()
    with open(path, "ab+", buffering=0) as file, _alone(file):
        end = file.seek(0, os.SEEK_END)
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
            lines = b"\n" + lines
        left = memoryview(lines)
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, end)
            raise


def read(path: str | os.PathLike[str], damaged: list[int] | None = None) -> Iterator[Record]:
    """The records of a file, in order.

    damaged    where the numbers of lines that are no record are put; None: such a line is refused
    Raises SepwiseError naming the line that is no record.
    """
    lines = Path(path).read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            yield Record(**json.loads(line))
        except (ValueError, TypeError) as error:
            if damaged is None:
                raise SepwiseError(f"{path}, line {number}, is not a record: {error}") from None
            damaged.append(number)


@contextmanager
def _alone(file: FileIO) -> Iterator[None]:
    """Nobody else writes to the file meanwhile; the lock goes with the process that holds it."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return done.stdout.strip() or None
