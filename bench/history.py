"""What has been timed already: cells of the benchmark as records, found again after an interruption."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import sepwise
from bench.measuring import Entry, noisy
from bench.process import ROOT
from bench.workload import Workload
from sepwise import records
from sepwise.errors import SepwiseError
from sepwise.records import Record

WHAT = "ops.latency"
# What decides a time; the rest of the benchmark only asks and prints.
CODE = ("src/sepwise/ops", "bench/candidates", "bench/worker.py", "bench/answer.py")
LIBRARY = "_C.so"  # the compiled core, wherever the package is installed
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
PEERS = ("torch", "onnxruntime", "openvino")


def code_fingerprint(root: Path = ROOT, packages: Iterable[str] = tuple(sepwise.__path__)) -> str:
    """A hash of the Python sources and the compiled library that the numbers depend on.

    A commit would do, were the tree always clean and the library never older than its sources.
    """
    tops = [root / name for name in CODE]
    files = [file for top in tops for file in ([top] if top.is_file() else sorted(top.rglob("*.py")))]
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


def versions() -> dict[str, str]:
    """Of every package that is timed. Raises SepwiseError when one is missing."""
    try:
        return {name: metadata.version(name) for name in PEERS}
    except metadata.PackageNotFoundError as missing:
        raise SepwiseError(f"{missing.name} is not installed: ./run bench installs it") from None


def to_record(
    entries: Mapping[str, Entry], workload: Workload, dtype: str, threads: int, rounds: int, **about: Any
) -> Record:
    """One cell: every candidate with its rounds."""
    value = {}
    for name, entry in entries.items():
        value[name] = {key: kept for key, kept in asdict(entry).items() if kept not in ("", None, [])}
        value[name].pop("rounds_us", None)
        if entry.rounds_us:
            value[name]["rounds_us"] = [round(us, 2) for us in entry.rounds_us]
    about |= {"workload": workload.to_dict(), "dtype": dtype, "threads": threads, "spread": "within `value`"}
    return records.here(WHAT, value, unit="us", n=rounds, about=about)


def key(about: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """What must agree for two cells to be the same measurement; the commit may differ where the code does not.

    A pair that two networks have is timed for each, so that every file of shapes has its own rows.
    """
    same = ("shapes", "workload", "dtype", "threads", "code", "versions", "isa", "instructions")
    return json.dumps(
        [{name: about.get(name) for name in same}, machine["processor"], machine["cores"]], sort_keys=True
    )


def covers(old: Record, classes: Sequence[str], implementations: Sequence[str], rounds: int) -> bool:
    """Whether a finished cell holds all that is asked for, and was taken on a quiet machine."""
    return (
        not noisy(old.about)
        and set(classes) <= set(old.about["classes"])
        and set(implementations) <= set(old.about["implementations"])
        and old.n >= rounds
    )


def read(path: Path) -> list[Record]:
    """The cells of a file, oldest first; nothing when there is no file.

    A last line without its end was being written when the run was killed: it is cut off, with a word on stderr.
    """
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        print(f"{path}: the last line was never finished; it is removed", file=sys.stderr)
        os.truncate(path, whole)
    return [record for record in records.read(path) if record.what == WHAT]


def newest(cells: Iterable[Record]) -> list[Record]:
    """For each workload, dtype, number of threads and machine the last cell written, in the order of first writing."""
    found: dict[str, Record] = {}
    for cell in cells:
        place = [cell.about[name] for name in ("shapes", "workload", "dtype", "threads", "isa", "instructions")]
        found[json.dumps([*place, cell.machine["processor"], cell.machine["cores"]], sort_keys=True)] = cell
    return list(found.values())
