"""What is timed against what: one file for each runtime, loaded only in the process that times it.

A runtime is a module with

    builders(job: Job) -> dict[str, Callable[[], Candidate]]                    the ways it can run a pair, by name
    network_builders(job: NetworkJob) -> dict[str, Callable[[], Candidate]]     the same for a network
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.answer import Tensors
from bench.networks import Network
from bench.workload import Workload

OURS = "ours"
# The files of a network: see `bench.prepared`.
WEIGHTS, PICTURES, ANSWER = "model.safetensors", "x.npy", "answer.npy"
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
class NetworkJob:
    """One network to build.

    folder     what `bench.prepared` has written
    batch      pictures of a call: the first of the folder
    classes    see Job
    """

    network: Network
    folder: Path
    batch: int
    dtype: str
    threads: int
    classes: tuple[str, ...]

    def x(self) -> np.ndarray:
        """The pictures of a call, float32 (N, C, H, W)."""
        return np.load(self.folder / PICTURES, mmap_mode="r")[: self.batch].copy()

    @property
    def onnx(self) -> str:
        return str(self.folder / onnx_name(self.batch))


@dataclass(frozen=True)
class Candidate:
    """One way to compute a workload or a network.

    run       one call, as its users make it
    answer    the output of a call, float32 (N, H', W', O)
    settle    sets what is global in its process; called before each block
    chose     what it says it runs, where it can choose
    """

    run: Callable[[], object]
    answer: Callable[[], np.ndarray]
    settle: Callable[[], None] = field(default=lambda: None)
    chose: str = ""


def onnx_name(batch: int) -> str:
    return f"{batch}.onnx"


def as_pixels(output: np.ndarray) -> np.ndarray:
    """The output of a network as (N, H', W', O): maps (N, O, H', W') turned, numbers (N, O) as maps of one pixel.

    >>> as_pixels(np.zeros((2, 10))).shape, as_pixels(np.zeros((2, 1, 32, 48))).shape
    ((2, 1, 1, 10), (2, 32, 48, 1))
    """
    maps = output[:, :, None, None] if output.ndim == 2 else output
    return np.ascontiguousarray(maps.transpose(0, 2, 3, 1))
