"""torch.compile with freezing: weights are constants, packed for oneDNN once.

For pairs, modes that search longer (max-autotune) and 1x1 convolutions as products gave the same times within 3 % when
tried, and take longer to build. For networks max-autotune is timed as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch._inductor.config
from torch import Tensor, nn

from bench.candidates import Candidate, Job, NetworkJob
from bench.candidates.pytorch import candidate, forms, network_forms, picture, pictures, set_threads, with_switches


def builders(job: Job) -> dict[str, Callable[[], Candidate]]:
    _begin(job.threads)
    return with_switches(job.dtype, "compile", forms(job), partial(_compiled, picture(job), {}))


def network_builders(job: NetworkJob) -> dict[str, Callable[[], Candidate]]:
    _begin(job.threads)
    x, plain = pictures(job), {"": network_forms(job)[""]}  # the compiler folds norms by itself
    found = with_switches(job.dtype, "compile", plain, lambda make, switch: _compiled(x, {}, make(), switch))
    return {**found, "compile, max-autotune": lambda: _searched(x, plain[""]())}


def _begin(threads: int) -> None:
    set_threads(threads)
    torch._dynamo.reset()
    torch._inductor.config.freezing = True


def _searched(x: Tensor, module: nn.Module) -> Candidate:
    """Compiled by the mode that searches longest.

    It asks for the precision by the older of PyTorch's two interfaces, which refuses to tell once a switch was set by
    the newer one; so it is set by the older one meanwhile, and then follows the switches again.
    """
    made = _compiled(x, {"max_autotune": True}, module, "none")
    made.settle()
    torch.set_float32_matmul_precision("highest")
    try:
        made.run()
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"  # type: ignore[attr-defined]
    return made


def _compiled(x: Tensor, options: dict[str, Any], module: nn.Module, switch: str) -> Candidate:
    # A copy, because what a switch permits is decided while compiling, and the same module would not compile again.
    compiled = torch.compile(copy.deepcopy(module), dynamic=False, fullgraph=True, options=options)
    return candidate(compiled, x, switch)
