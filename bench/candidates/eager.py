"""PyTorch without a compiler: the stock operations, and the same under each float32 switch."""

from __future__ import annotations

from collections.abc import Callable

from bench.candidates import Candidate, Job, NetworkJob
from bench.candidates.pytorch import (
    candidate,
    forms,
    network_forms,
    picture,
    pictures,
    set_threads,
    with_switches,
)


def builders(job: Job) -> dict[str, Callable[[], Candidate]]:
    set_threads(job.threads)
    x = picture(job)
    return with_switches(job.dtype, "eager", forms(job), lambda module, switch: candidate(module, x, switch))


def network_builders(job: NetworkJob) -> dict[str, Callable[[], Candidate]]:
    set_threads(job.threads)
    x = pictures(job)
    return with_switches(job.dtype, "eager", network_forms(job), lambda make, switch: candidate(make(), x, switch))
