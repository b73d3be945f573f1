"""PyTorch without a compiler: the stock pair, and the same under each float32 switch."""

from __future__ import annotations

from collections.abc import Callable

from bench.candidates import Candidate, Job
from bench.candidates.pytorch import candidate, picture, set_threads, with_switches


def builders(job: Job) -> dict[str, Callable[[], Candidate]]:
    set_threads(job.threads)
    x = picture(job)
    return with_switches(job, "eager", lambda module, switch: candidate(module, x, switch))
