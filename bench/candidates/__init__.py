"""What is timed against what: one file for each runtime, loaded only in the process that times it.

A runtime is a module with

    builders(job) -> dict[str, Callable[[], Candidate]]      the ways it can run this workload, by name
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bench.answer import Tensors
from bench.workload import Workload

OURS = "ours"
RUNTIMES = (OURS, "eager", "compiled", "onnx_runtime", "open_vino")


@dataclass(frozen=True)
class Job:
    """One workload to build.

    classes            accuracy classes asked for: "highest", "high" (float32) or "bf16" (bfloat16)
    implementations    names for `impl` of `separable_conv2d`
    """

    workload: Workload
    tensors: Tensors
    dtype: str
    threads: int
    classes: tuple[str, ...]
    implementations: tuple[str, ...]


@dataclass(frozen=True)
class Candidate:
    """One way to compute a workload.

    run       one call, as its users make it
    answer    the output of a call, float32 (N, H', W', O)
    settle    sets what is global in its process; called before each block
    chose     what it says it runs, where it can choose
    """

    run: Callable[[], object]
    answer: Callable[[], np.ndarray]
    settle: Callable[[], None] = field(default=lambda: None)
    chose: str = ""
