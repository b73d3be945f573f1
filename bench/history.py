"""What has been timed already: cells of the benchmark as records, found again after an interruption."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import sepwise
from bench.measuring import Entry, noisy
from bench.process import ROOT
from sepwise import records
from sepwise.errors import SepwiseError
from sepwise.records import Record

LIBRARY = "_C.so"  # the compiled core, wherever the package is installed
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
HERE = ("isa", "instructions")  # of `about`: what else makes a machine


@dataclass(frozen=True)
class Series:
    """One kind of cells.

    what        name of their records
    place       the names in `about` that say what was measured
    code        files and folders that decide the numbers; the rest of the benchmark only asks and prints
    packages    that are timed, or make what is timed
    """

    what: str
    place: tuple[str, ...]
    code: tuple[str, ...]
    packages: tuple[str, ...]


ASKED = ("bench/candidates", "bench/worker.py", "bench/answer.py")
GEOMETRY = "src/sepwise/geometry.py"
RUNNING = ("torch", "onnxruntime", "openvino")
OPS = Series("ops.latency", ("shapes", "workload", "dtype", "threads"), (GEOMETRY, "src/sepwise/ops", *ASKED), RUNNING)
NETWORK = ("network", "batch", "dtype", "threads")
ROOMS = ("ops", "factor", "nn", "zoo", "measure", "graph", "fusion", "conversion")
BUILT = (GEOMETRY, *(f"src/sepwise/{room}" for room in ROOMS))
WRITTEN = ("bench/networks.py", "bench/prepared.py", "bench/plans")
MODELS = Series("models.latency", NETWORK, (*BUILT, *WRITTEN, *ASKED), (*RUNNING, "timm", "onnxscript"))
MEMORY = replace(MODELS, what="models.memory", code=(*MODELS.code, "bench/memory.py"))


def code_fingerprint(code: Iterable[str], root: Path = ROOT, packages: Iterable[str] = tuple(sepwise.__path__)) -> str:
    """A hash of these files and folders, and of the compiled library in `packages`.

    A commit would do, were the tree always clean and the library never older than its sources.
    """
    tops = [root / name for name in code]
    files = [
        file
        for top in tops
        for file in ([top] if top.is_file() else sorted([*top.rglob("*.py"), *top.rglob("*.json")]))
    ]
    files += [Path(folder) / LIBRARY for folder in packages]
    found = hashlib.sha256()
    for file in files:
        if file.is_file():
            found.update(f"{file.name}\0".encode() + file.read_bytes())
    return found.hexdigest()[:16]


def instructions() -> list[str]:
    """Those of INSTRUCTIONS that the processor names; the name of the processor may be that of a whole family."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return [name for name in INSTRUCTIONS if name in flags]


def versions(series: Series) -> dict[str, str]:
    """Of every package of a series. Raises SepwiseError when one is missing."""
    try:
        return {name: metadata.version(name) for name in series.packages}
    except metadata.PackageNotFoundError as missing:
        raise SepwiseError(f"{missing.name} is not installed: ./run bench installs it") from None


def same(series: Series) -> dict[str, Any]:
    """What of `about` must agree, besides the place, for two cells to be the same measurement."""
    return {
        "code": code_fingerprint(series.code),
        "versions": versions(series),
        "isa": os.environ.get("SEPWISE_ISA", ""),
        "instructions": instructions(),
    }


def to_record(series: Series, entries: Mapping[str, Entry], rounds: int, **about: Any) -> Record:
    """One cell: every candidate with its rounds."""
    value = {}
    for name, entry in entries.items():
        value[name] = {key: kept for key, kept in asdict(entry).items() if kept not in ("", None, [])}
        value[name].pop("rounds_us", None)
        if entry.rounds_us:
            value[name]["rounds_us"] = [round(us, 2) for us in entry.rounds_us]
    return records.here(series.what, value, unit="us", n=rounds, about={**about, "spread": "within `value`"})


def key(series: Series, about: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """What must agree for two cells to be the same measurement; the commit may differ where the code does not.

    A pair that two networks have is timed for each, so that every file of shapes has its own rows.
    """
    names = (*series.place, "code", "versions", *HERE)
    return json.dumps(
        [{name: about.get(name) for name in names}, machine["processor"], machine["cores"]], sort_keys=True
    )


def covers(old: Record, rounds: int, **asked: Sequence[str]) -> bool:
    """Whether a finished cell holds all that is asked for, and was taken on a quiet machine.

    asked    name in `about` -> what must be among its values, such as classes
    """
    return not noisy(old.about) and old.n >= rounds and all(set(asked[n]) <= set(old.about[n]) for n in asked)


def finished(path: Path, series: Series, again: bool) -> dict[str, list[Record]]:
    """`key` -> the cells of a file; none where all is to be measured again."""
    found: dict[str, list[Record]] = {}
    for old in [] if again else read(path, series):
        found.setdefault(key(series, old.about, old.machine), []).append(old)
    return found


def read(path: Path, series: Series) -> list[Record]:
    """The cells of a series in a file, oldest first; nothing when there is no file.

    A last line without its end was being written when the run was killed: it is cut off, with a word on stderr.
    """
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        print(f"{path}: the last line was never finished; it is removed", file=sys.stderr)
        os.truncate(path, whole)
    return [record for record in records.read(path) if record.what == series.what]


def asked(
    cells: Iterable[Record], classes: Sequence[str], named: Callable[[Mapping[str, Any]], bool]
) -> Iterator[Record]:
    """Of cells those whose `about` is named, each with those of its classes that are asked for; none without any."""
    for cell in cells:
        kept = [accuracy for accuracy in cell.about["classes"] if accuracy in classes]
        if kept and named(cell.about):
            yield replace(cell, about={**cell.about, "classes": kept})


def newest(series: Series, cells: Iterable[Record]) -> list[Record]:
    """For each place and machine the last cell written, in the order of first writing."""
    found: dict[str, Record] = {}
    for cell in cells:
        place = [cell.about[name] for name in (*series.place, *HERE)]
        found[json.dumps([*place, cell.machine["processor"], cell.machine["cores"]], sort_keys=True)] = cell
    return list(found.values())
