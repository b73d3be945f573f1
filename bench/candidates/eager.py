"""PyTorch without a compiler: the stock pair, and the same under each float32 switch."""

from __future__ import annotations

from collections.abc import Callable

from bench.candidates import Candidate, Job
from bench.candidates.pytorch import SWITCHES, candidate, forms, picture, set_threads


def builders(job: Job) -> dict[str, Callable[[], Candidate]]:
    set_threads(job.threads)
    x, found = picture(job), {}
    for name, module in forms(job).items():
        found[f"eager{name}"] = lambda module=module: candidate(module, x)
        for switch in SWITCHES if job.dtype == "float32" else ():
            found[f"eager{name}, {switch} permitted"] = lambda module=module, s=switch: candidate(module, x, s)
    return found
