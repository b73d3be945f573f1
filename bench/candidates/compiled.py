"""torch.compile with freezing: weights are constants, packed for oneDNN once. Modes that search longer (max-autotune)
and 1x1 convolutions as products gave the same times within 3 % when tried, and take longer to build."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch._inductor.config
from torch import nn

from bench.candidates import Candidate, Job
from bench.candidates.pytorch import SWITCHES, candidate, forms, picture, set_threads


def builders(job: Job) -> dict[str, Callable[[], Candidate]]:
    set_threads(job.threads)
    torch._dynamo.reset()
    torch._inductor.config.freezing = True
    x, found = picture(job), {}
    for name, module in forms(job).items():
        found[f"compile{name}"] = lambda module=module: _compiled(module, x)
        for switch in SWITCHES if job.dtype == "float32" else ():
            found[f"compile{name}, {switch} permitted"] = lambda module=module, s=switch: _compiled(module, x, s)
    return found


def _compiled(module: nn.Module, x: torch.Tensor, switch: str = "none") -> Candidate:
    # A copy, because what a switch permits is decided while compiling, and the same module would not compile again.
    return candidate(torch.compile(copy.deepcopy(module), dynamic=False, fullgraph=True), x, switch)
