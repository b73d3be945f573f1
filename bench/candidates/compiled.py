"""torch.compile with freezing: weights are constants, packed for oneDNN once. Modes that search longer (max-autotune)
and 1x1 convolutions as products gave the same times within 3 % when tried, and take longer to build."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch._inductor.config
from torch import nn

from bench.candidates import Candidate, Job
from bench.candidates.pytorch import candidate, picture, set_threads, with_switches


def builders(job: Job) -> dict[str, Callable[[], Candidate]]:
    set_threads(job.threads)
    torch._dynamo.reset()
    torch._inductor.config.freezing = True
    x = picture(job)

    def build(module: nn.Module, switch: str) -> Candidate:
        # A copy, because what a switch permits is decided while compiling, and the same module would not compile again.
        return candidate(torch.compile(copy.deepcopy(module), dynamic=False, fullgraph=True), x, switch)

    return with_switches(job, "compile", build)
