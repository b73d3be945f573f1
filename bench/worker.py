"""The process that runs one runtime: `python -m bench.worker RUNTIME`, told what to do by JSON lines on stdin.

    {"do": "build", "folder": ..., "workload": ..., ...}    -> {"built": {name: {"output", "chose"} or {"refused"}}}
    {"do": "time", "candidate": name}                       -> {"us": microseconds of a call, "calls": how many}
    {"do": "roofline", "threads": number}                   -> {"roofline": {...}}

The last two take "realtime", true or false, and also answer "waited": see `bench.quiet.Waiting`.

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
from bench.candidates import RUNTIMES, Candidate, Job
from bench.workload import Workload

WARM_UP_SECONDS = 0.003
BLOCK_SECONDS = 0.006


def time_block(candidate: Candidate, clock: Any = time.perf_counter_ns) -> dict[str, Any]:
    """Calls for WARM_UP_SECONDS, then calls for BLOCK_SECONDS, at least one of each; the median of the latter."""
    candidate.settle()
    run = candidate.run
    start = clock()
    run()
    while clock() - start < WARM_UP_SECONDS * 1e9:
        run()
    taken: list[int] = []
    start = now = clock()
    while not taken or now - start < BLOCK_SECONDS * 1e9:
        before = now
        run()
        now = clock()
        taken.append(now - before)
    return {"us": median(taken) / 1e3, "calls": len(taken)}


class Bench:
    """Holds what was built for the present workload."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime
        self.candidates: dict[str, Candidate] = {}

    def build(
        self,
        folder: str,
        workload: dict[str, Any],
        dtype: str,
        threads: int,
        classes: list[str],
        implementations: list[str],
    ) -> dict[str, Any]:
        self.candidates.clear()
        gc.collect()
        built: dict[str, dict[str, str]] = {}
        job = Job(
            Workload(**workload), load_tensors(Path(folder)), dtype, threads, tuple(classes), tuple(implementations)
        )
        for number, (name, make) in enumerate(self.runtime.builders(job).items()):
            try:
                candidate = make()
                candidate.settle()
                file = Path(folder) / f"output-{os.getpid()}-{number}.npy"
                np.save(file, candidate.answer())
            except Exception as error:  # whatever a runtime throws is its refusal
                built[name] = {"refused": f"{type(error).__name__}: {error}".strip().partition("\n")[0]}
                continue
            self.candidates[name] = candidate
            built[name] = {"output": str(file), "chose": candidate.chose}
        gc.collect()
        gc.freeze()
        return {"built": built}

    def time(self, candidate: str, realtime: bool) -> dict[str, Any]:
        gc.disable()
        try:
            return watched(lambda: time_block(self.candidates[candidate]), realtime)
        finally:
            gc.enable()

    def roofline(self, threads: int, realtime: bool) -> dict[str, Any]:
        from bench import roofline

        return watched(lambda: {"roofline": roofline.measure(threads)}, realtime)


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
