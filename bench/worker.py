"""The process that runs one runtime: `python -m bench.worker RUNTIME`, told what to do by JSON lines on stdin.

    {"do": "build", "kind": "pair" or "network", "folder": ..., ...}
                                               -> {"built": {name: {"output", "chose"} or {"refused"}}}
    {"do": "time", "candidate": name}          -> {"us": microseconds of a call, "calls": how many}
    {"do": "profile", "candidate": name}       -> see `bench.profiled.shares`
    {"do": "names", "kind": ..., ...}          -> {"names": what could be built}
    {"do": "memory", "candidate": name, "kind": ..., ...}
                                               -> see `bench.memory.measure`; for a process that has built nothing yet
    {"do": "roofline", "threads": number}      -> {"roofline": {...}}

"time" and "roofline" take "realtime", true or false, and also answer "waited": see `bench.quiet.Waiting`.

Between requests it is blocked reading. It ends when stdin does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench import quiet
from bench.answer import Tensors
from bench.candidates import RUNTIMES, Candidate, Job, NetworkJob
from bench.networks import NETWORKS
from bench.workload import Workload

WARM_UP_SECONDS = 0.003
BLOCK_SECONDS = {"pair": 0.006, "network": 0.040}
Builders = dict[str, Callable[[], Candidate]]


def time_block(candidate: Candidate, seconds: float, clock: Any = time.perf_counter_ns) -> dict[str, Any]:
    """Calls for WARM_UP_SECONDS, then calls for so many seconds, at least one of each; the median of the latter."""
    candidate.settle()
    run = candidate.run
    start = clock()
    run()
    while clock() - start < WARM_UP_SECONDS * 1e9:
        run()
    taken: list[int] = []
    start = now = clock()
    while not taken or now - start < seconds * 1e9:
        before = now
        run()
        now = clock()
        taken.append(now - before)
    return {"us": median(taken) / 1e3, "calls": len(taken)}


class Bench:
    """Holds what was built for the present workload or network."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime
        self.candidates: dict[str, Candidate] = {}
        self.block_seconds = 0.0
        self.first: dict[str, bool] = {}  # whether blocks may go before ordinary programs

    def build(self, kind: str, folder: str, **job: Any) -> dict[str, Any]:
        self.candidates.clear()
        self.first.clear()
        gc.collect()
        built: dict[str, dict[str, str]] = {}
        self.block_seconds = BLOCK_SECONDS[kind]
        for number, (name, make) in enumerate(builders(self.runtime, kind, folder, **job).items()):
            try:
                candidate = make()
                candidate.settle()
                file = save_answer(candidate, folder, number)
            except Exception as error:  # whatever a runtime throws is its refusal
                built[name] = {"refused": sentence(error)}
                continue
            start = time.perf_counter()
            candidate.run()
            self.first[name] = 2 * (time.perf_counter() - start) < quiet.LONGEST_SECONDS
            self.candidates[name] = candidate
            built[name] = {"output": file, "chose": candidate.chose}
        gc.collect()
        gc.freeze()
        return {"built": built}

    def time(self, candidate: str, realtime: bool) -> dict[str, Any]:
        gc.disable()
        try:
            first = realtime and self.first[candidate]
            return watched(lambda: time_block(self.candidates[candidate], self.block_seconds), first)
        finally:
            gc.enable()

    def profile(self, candidate: str) -> dict[str, Any]:
        from bench import profiled

        return profiled.shares(self.candidates[candidate])

    def names(self, **job: Any) -> dict[str, Any]:
        return {"names": list(builders(self.runtime, **job))}

    def memory(self, candidate: str, folder: str, **job: Any) -> dict[str, Any]:
        from bench import memory

        try:
            made, found = memory.measure(lambda: builders(self.runtime, folder=folder, **job)[candidate]())
            return {**found, "output": save_answer(made, folder, 0)}
        except Exception as error:  # as above
            return {"refused": sentence(error)}

    def roofline(self, threads: int, realtime: bool) -> dict[str, Any]:
        from bench import roofline

        return watched(lambda: {"roofline": roofline.measure(threads)}, realtime)


def builders(runtime: Any, kind: str, folder: str, **job: Any) -> Builders:
    """What a runtime can build for a request."""
    job["classes"] = tuple(job["classes"])
    if kind == "network":
        return runtime.network_builders(NetworkJob(network=NETWORKS[job.pop("network")], folder=Path(folder), **job))
    workload, implementations = Workload(**job.pop("workload")), tuple(job.pop("implementations"))
    tensors = load_tensors(Path(folder))
    return runtime.builders(Job(workload=workload, tensors=tensors, implementations=implementations, **job))


def save_answer(candidate: Candidate, folder: str, number: int) -> str:
    file = Path(folder) / f"output-{os.getpid()}-{number}.npy"
    np.save(file, candidate.answer())
    return str(file)


def sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0]


def watched(measure: Callable[[], dict[str, Any]], realtime: bool) -> dict[str, Any]:
    """What `measure` gives, and the share of the time that threads of this process were in the queue."""
    with quiet.realtime() if realtime else nullcontext(), quiet.Waiting() as waiting:
        found = measure()
    return {**found, "waited": waiting.share}


def save_tensors(tensors: Tensors, folder: Path) -> None:
    for name, array in vars(tensors).items():
        np.save(folder / f"{name}.npy", array)


def load_tensors(folder: Path) -> Tensors:
    return Tensors(**{name: np.load(folder / f"{name}.npy") for name in Tensors.__annotations__})


def main(runtime: str) -> None:
    """Serve requests until stdin ends. What libraries print goes to stderr; only answers go to stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    bench = Bench(importlib.import_module(f"bench.candidates.{runtime}"))
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(getattr(bench, request.pop("do"))(**request)) + "\n")
        answers.flush()


if __name__ == "__main__":
    assert sys.argv[1] in RUNTIMES
    main(sys.argv[1])
