"""One pair or network on one number of threads: outputs checked first, then everything timed in turn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from bench import quiet
from bench.answer import judge
from bench.candidates import OURS, RUNTIMES
from bench.process import Worker, WorkerError

# A block is taken again when its threads stood in the queue for a processor for more than this share of its time.
WAITING = 0.02
TRIES = 3
TRIALS = 3  # blocks of a switch and of the plain form, to see whether it does anything
# A row is noisy, and timed a second time, when more than this share of its blocks stayed disturbed, or when half of its
# candidates spread (quartiles over median) by more than this: other virtual machines share caches and memory, unseen.
NOISY = 0.1
UNSTEADY = 0.1
HEADLINE = "auto"
SAME = f"what {HEADLINE!r} runs here, so it is not timed twice"
IDLE_SWITCH = "the switch does nothing here"
IDLE = 0.95  # a switch that leaves more than this of the time does nothing


@dataclass
class Entry:
    """What became of one candidate.

    ours        accuracy class promised, for an implementation of ours; "" for a peer
    error       see `bench.answer.Verdict`
    refused     why it was not timed; "" when it was
    rounds_us   microseconds of a call, one median for each round
    """

    runtime: str
    ours: str = ""
    chose: str = ""
    error: float | None = None
    peak: float | None = None
    refused: str = ""
    rounds_us: list[float] = field(default_factory=list)


class Workers:
    """A process for each runtime, started when first needed and again after it died."""

    def __init__(self, threads: int, realtime: bool = False, start: Callable[[str, int], Worker] = Worker) -> None:
        self.threads, self.realtime, self._start = threads, realtime, start
        self._workers: dict[str, Worker] = {}

    def get(self, runtime: str) -> Worker:
        if runtime not in self._workers or not self._workers[runtime].alive:
            self._workers[runtime] = self._start(runtime, self.threads)
        return self._workers[runtime]

    def measure(self, runtime: str, do: str, **request: Any) -> dict[str, Any]:
        """One measurement when all processes sleep, taken again while others are in its way, TRIES times at most.

        The answer says "clean" when nobody was in the way of the last one.
        """
        worker, found = self.get(runtime), {}
        for _ in range(TRIES):
            quiet.settle(self.pids())
            found = worker.ask(do, realtime=self.realtime, **request)
            if found["waited"] <= WAITING:
                break
        return {**found, "clean": found["waited"] <= WAITING}

    def pids(self) -> list[int]:
        return [worker.pid for worker in self._workers.values() if worker.alive]

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()


def build_and_check(
    workers: Workers, folder: Path, job: dict[str, Any], answer: np.ndarray, bounds: Mapping[str, float]
) -> dict[str, Entry]:
    """Every candidate of every runtime, built, run once and compared with the answer; a wrong one is refused.

    folder    holds what the job needs, and takes the outputs
    job       "kind", "dtype", "classes" and whatever else `bench.worker.builders` takes for it
    bounds    accuracy class -> the largest error
    """
    entries: dict[str, Entry] = {}
    loosest = max(bounds[accuracy] for accuracy in job["classes"])
    for runtime in RUNTIMES:
        try:
            built = workers.get(runtime).ask("build", folder=str(folder), threads=workers.threads, **job)["built"]
        except WorkerError as error:
            entries[runtime] = Entry(runtime, refused=str(error))
            continue
        digests: dict[str, str] = {}
        for name, found in built.items():
            ours = class_of(runtime, name)
            entry = entries[name] = Entry(runtime, ours, found.get("chose", ""), refused=found.get("refused", ""))
            if not entry.refused:
                digests[name] = check(entry, found["output"], answer, bounds[ours] if ours else loosest)
        drop_what_auto_runs(entries)
        try:
            drop_idle_switches(workers, entries, digests)
        except WorkerError as error:
            _bury(entries, runtime, error)
    return entries


def class_of(runtime: str, name: str) -> str:
    """The accuracy class that a candidate of ours promises in its name; "" for a peer."""
    return name.rpartition(", ")[2] if runtime == OURS else ""


def check(entry: Entry, output: str, answer: np.ndarray, bound: float) -> str:
    """Note how far off an output is, refuse what is too far, remove its file; returns a digest of its bits."""
    found = np.load(output, mmap_mode="r")
    Path(output).unlink()
    verdict = judge(found, answer)
    if isfinite(verdict.error):
        entry.error, entry.peak = verdict.error, verdict.peak
    entry.refused = verdict.refusal(bound) or ""
    return hashlib.blake2b(found.tobytes()).hexdigest()


def drop_what_auto_runs(entries: Mapping[str, Entry]) -> None:
    """An implementation that "auto" itself runs is the same call by another name: its time tells nothing new."""
    for name, entry in entries.items():
        implementation, _, accuracy = name.rpartition(", ")
        auto = entries.get(f"{HEADLINE}, {accuracy}")
        if entry.runtime == OURS and auto and auto is not entry and auto.chose == implementation and not auto.refused:
            entry.refused = entry.refused or SAME


def drop_idle_switches(workers: Workers, entries: Mapping[str, Entry], digests: Mapping[str, str]) -> None:
    """Leave out a float32 switch that changes nothing here: the same bits as the plain form, and no faster.

    The same bits alone do not tell: permitting bfloat16 makes eager PyTorch 2.13 compute 1x1 convolutions by oneDNN
    instead of its default library, with the same result in half the time on some processors.
    """
    for name, digest in digests.items():
        plain, _, permitted = name.rpartition(", ")
        if permitted.endswith(" permitted") and digests.get(plain) == digest and not entries[name].refused:
            runtime, trials = entries[name].runtime, {plain: float("inf"), name: float("inf")}
            for each in (plain, name) * TRIALS:
                trials[each] = min(trials[each], workers.measure(runtime, "time", candidate=each)["us"])
            if trials[name] > IDLE * trials[plain]:
                entries[name].refused = f"same bits as {plain!r} and no faster: {IDLE_SWITCH}"


def time_steadily(workers: Workers, entries: Mapping[str, Entry], rounds: int) -> dict[str, Any]:
    """Rounds, and the same once more when they were noisy; the steadier of both is kept."""
    quality = time_rounds(workers, entries, rounds)
    if noisy(quality):
        kept = {name: entry.rounds_us for name, entry in entries.items()}
        again = time_rounds(workers, entries, rounds)
        if again["unsteady"] < quality["unsteady"]:
            return again
        for name, entry in entries.items():
            entry.rounds_us = [] if entry.refused else kept[name]
    return quality


def noisy(quality: Mapping[str, Any]) -> bool:
    """Whether the outcome of `time_rounds` says that the row should be timed again."""
    return quality["disturbed"] > NOISY or quality["unsteady"] > UNSTEADY


def time_rounds(workers: Workers, entries: Mapping[str, Entry], rounds: int) -> dict[str, Any]:
    """Every candidate not refused, one block each round; each round starts with the next one.

    returns     "strangers": share of a core that other programs took meanwhile; "disturbed": share of the blocks that
                had to be taken although others were in their way; "unsteady": quartile range over median of the
                candidate in the middle
    """
    for entry in entries.values():
        entry.rounds_us = []
    disturbed, blocks, start = 0, 0, quiet.Usage.now(workers.pids())
    for number in range(rounds):
        names = [name for name, entry in entries.items() if not entry.refused]
        turn = number % max(len(names), 1)
        for name in names[turn:] + names[:turn]:
            entry = entries[name]
            if entry.refused:  # its process died earlier in this round, with another candidate
                continue
            try:
                block = workers.measure(entry.runtime, "time", candidate=name)
                entry.rounds_us.append(block["us"])
                disturbed, blocks = disturbed + (not block["clean"]), blocks + 1
            except WorkerError as error:
                _bury(entries, entry.runtime, error)
    strangers = quiet.Usage.now(workers.pids()).strangers_since(start)
    spreads = [(high - low) / middle for low, middle, high in map(quartiles, _timed(entries))]
    return {
        "strangers": round(strangers, 3),
        "disturbed": round(disturbed / max(blocks, 1), 3),
        "unsteady": round(median(spreads), 3) if spreads else 0.0,
    }


def _timed(entries: Mapping[str, Entry]) -> list[list[float]]:
    return [entry.rounds_us for entry in entries.values() if entry.rounds_us]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Low quartile, median, high quartile; three times the same for one value.

    >>> quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    (2.0, 3.0, 4.0)
    """
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _bury(entries: Mapping[str, Entry], runtime: str, error: WorkerError) -> None:
    """All candidates of a process that died are lost with it."""
    for lost in entries.values():
        if lost.runtime == runtime:
            lost.refused, lost.rounds_us = lost.refused or str(error), []
