"""`./run bench models`: whole networks through `sepwise.fuse` against the best peers, with output checked first.

Also where the time of ours goes, and, with --memory, what each way to run a network keeps in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import frame, history, models_table, networks
from bench.answer import DTYPE, NETWORK_BOUND
from bench.candidates import ANSWER, OURS, RUNTIMES
from bench.history import MEMORY, MODELS, Series
from bench.measuring import Entry, Workers, build_and_check, check, class_of, time_steadily
from bench.networks import Network
from bench.printed import of_threads
from bench.process import ENVIRONMENT, ROOT, Worker, WorkerError
from sepwise import records
from sepwise.errors import SepwiseError

RESULTS = ROOT / "bench" / "results" / "models.jsonl"
BATCHES = (1, 16)
PATIENCE = 3600.0  # seconds; torch.compile builds a network four times
# Memory is measured as users meet it: with the C library as it is, freed memory goes back to the system.
PLAIN = {name: value for name, value in ENVIRONMENT.items() if name != "GLIBC_TUNABLES"}


@dataclass(frozen=True)
class Cell:
    """One network in one dtype; every (batch, threads) that is still to be measured."""

    network: Network
    dtype: str
    classes: tuple[str, ...]
    places: tuple[tuple[int, int], ...]

    @property
    def batches(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(batch for batch, _ in self.places))


def main(arguments: Sequence[str]) -> int:
    return frame.main("models", _parser().parse_args(arguments), run, show)


def _parser() -> argparse.ArgumentParser:
    parser = frame.parser("models", __doc__, list(NETWORK_BOUND), RESULTS)
    add = parser.add_argument
    add("--networks", nargs="+", default=[], metavar="NAME", help=f"default: all of {', '.join(networks.NETWORKS)}")
    add("--batches", nargs="+", type=int, default=list(BATCHES), metavar="N", help="pictures of a call; default 1 16")
    add("--memory", action="store_true", help="measure resident memory instead of times")
    return parser


def show(args: argparse.Namespace) -> frame.Shown:
    chosen = {network.name for network in networks.select(args.networks)}

    def named(about: Mapping[str, Any]) -> bool:
        return about["network"] in chosen and about["batch"] in args.batches and about["threads"] in args.threads

    timed, remembered = (
        list(history.asked(history.newest(series, history.read(args.results, series)), args.classes, named))
        for series in (MODELS, MEMORY)
    )
    wrong = any(row.wrong for row in models_table.rows(timed))
    if args.json:
        return frame.Shown(json.dumps(models_table.to_dict(timed, remembered)), wrong)
    return frame.Shown(models_table.render(timed, remembered, args.markdown), wrong)


def run(args: argparse.Namespace) -> None:
    """Measure what is not finished, and write each cell as soon as it is."""
    if min(args.batches) < 1:
        raise SepwiseError(f"--batches {' '.join(map(str, args.batches))}: expected 1 or more of each")
    series = MEMORY if args.memory else MODELS
    same = history.same(series)
    cells = _unfinished(args, series, same)
    if not cells:
        print("bench models: everything asked for is finished; --again measures it anew", file=sys.stderr)
        return
    from tqdm import tqdm

    if not (args.realtime or args.memory):
        frame.warn_if_busy("models")
    total = sum(len(cell.places) for cell in cells)
    with ExitStack() as stack:
        measure = remembered if args.memory else _timer(args, stack)
        bar = stack.enter_context(tqdm(total=total, unit="cell", file=sys.stderr, dynamic_ncols=True))
        for cell in cells:
            bar.set_description(f"{cell.network.name} {cell.dtype}: preparing")
            with prepared(cell.network, cell.dtype, cell.batches) as folder:
                for batch, threads in cell.places:
                    bar.set_description(f"{cell.network.name} {cell.dtype}, batch {batch}, {of_threads(threads)}")
                    answer = np.load(folder / ANSWER, mmap_mode="r")[:batch]
                    job = {"kind": "network", "network": cell.network.name, "batch": batch, "dtype": cell.dtype}
                    record = measure(folder, job | {"classes": list(cell.classes)}, threads, answer)
                    about = {**same, **record.about, "date": date.today().isoformat()}
                    records.append(args.results, [replace(record, about=about)])
                    bar.update()


@contextmanager
def prepared(network: Network, dtype: str, batches: Sequence[int]) -> Iterator[Path]:
    """A folder with what `bench.prepared` writes. Raises SepwiseError, with its last line, when that fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bench.prepared", network.name, dtype, folder, *map(str, batches)]
        path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
            raise SepwiseError(f"{network.name} cannot be prepared in {dtype}: {lines[-1]}")
        yield Path(folder)


Measure = Callable[[Path, dict[str, Any], int, np.ndarray], records.Record]


def _timer(args: argparse.Namespace, stack: ExitStack) -> Measure:
    workers = {n: Workers(n, args.realtime, partial(Worker, seconds=PATIENCE)) for n in args.threads}
    for each in workers.values():
        stack.callback(each.close)
    return lambda folder, job, threads, answer: timed(workers[threads], folder, job, answer, args.rounds)


def timed(workers: Workers, folder: Path, job: dict[str, Any], answer: np.ndarray, rounds: int) -> records.Record:
    """Every candidate checked, timed, and ours followed: where its time goes."""
    entries = build_and_check(workers, folder, job, answer, NETWORK_BOUND)
    quality = time_steadily(workers, entries, rounds)
    profile = {}
    for name, entry in entries.items():
        if entry.ours and not entry.refused:
            profile[entry.ours] = workers.get(OURS).ask("profile", candidate=name)
    about = {**_place(job, workers.threads), **quality, "profile": profile, "realtime": workers.realtime}
    return history.to_record(MODELS, entries, rounds, **about)


def remembered(folder: Path, job: dict[str, Any], threads: int, answer: np.ndarray) -> records.Record:
    """What each candidate keeps in memory, in a process of its own; one that answers wrongly is refused."""
    request, value = {**job, "folder": str(folder), "threads": threads}, {}
    loosest = max(NETWORK_BOUND[accuracy] for accuracy in job["classes"])
    for runtime in RUNTIMES:
        try:
            names = _once(runtime, threads, "names", request)["names"]
        except WorkerError as error:
            value[runtime] = {"kind": runtime, "refused": str(error)}
            continue
        for name in names:
            try:
                found = _once(runtime, threads, "memory", {**request, "candidate": name})
            except WorkerError as error:
                found = {"refused": str(error)}
            if "output" in found:
                entry, ours = Entry(runtime), class_of(runtime, name)
                check(entry, found.pop("output"), answer, NETWORK_BOUND[ours] if ours else loosest)
                found = {"refused": entry.refused} if entry.refused else found
            value[name] = {"kind": runtime, **found}
    return records.here(MEMORY.what, value, unit="MiB", about=_place(job, threads))


def _once(runtime: str, threads: int, do: str, request: dict[str, Any]) -> dict[str, Any]:
    """One request to a process of its own."""
    worker = Worker(runtime, threads, seconds=PATIENCE, environment=PLAIN)
    try:
        return worker.ask(do, **request)
    finally:
        worker.close()


def _place(job: dict[str, Any], threads: int) -> dict[str, Any]:
    return {**{name: job[name] for name in ("network", "batch", "dtype", "classes")}, "threads": threads}


def _unfinished(args: argparse.Namespace, series: Series, same: dict[str, Any]) -> list[Cell]:
    finished = history.finished(args.results, series, args.again)

    def done(network: str, batch: int, dtype: str, threads: int, classes: Sequence[str]) -> bool:
        wanted = {**same, "network": network, "batch": batch, "dtype": dtype, "threads": threads}
        old = finished.get(history.key(series, wanted, records.machine()), [])
        if args.memory:
            return any(set(classes) <= set(record.about["classes"]) for record in old)
        return any(history.covers(record, args.rounds, classes=classes) for record in old)

    cells = []
    for network in networks.select(args.networks):
        for dtype in dict.fromkeys(DTYPE.values()):
            classes = tuple(c for c in args.classes if DTYPE[c] == dtype)
            places = tuple(
                (batch, threads)
                for batch in args.batches
                for threads in args.threads
                if classes and not done(network.name, batch, dtype, threads, classes)
            )
            if places:
                cells.append(Cell(network, dtype, classes, places))
    return cells
