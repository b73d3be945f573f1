"""The compiled core: found and loaded once, which registers `torch.ops.sepwise`; and what it says of itself."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import UnsupportedError


@dataclass(frozen=True)
class Kernel:
    """One compiled kernel; `why_not` says why this machine does not run it, None that it does."""

    name: str
    isa: str
    dtype: torch.dtype
    precision: str
    why_not: str | None


@dataclass(frozen=True)
class Machine:
    """Instruction sets that processor and operating system offer the kernels, SEPWISE_ISA ("" unless set), and the
    sentence that says why it cannot be obeyed."""

    offers: tuple[str, ...]
    setting: str
    problem: str | None


@dataclass(frozen=True)
class PackedWeights:
    """Weights kept in a kernel's order: how many, their bytes with the weights they were packed from; and how many
    calls so far packed, and how many found their weights packed."""

    kept: int
    bytes: int
    packed: int
    reused: int


def _find() -> Path | None:
    # In an editable installation the library lies in site-packages, not beside this file.
    package = sys.modules[__name__.partition(".")[0]]
    return next((file for folder in package.__path__ if (file := Path(folder) / "_C.so").is_file()), None)


def _load() -> str | None:
    library = _find()
    if library is None:
        return (
            "the compiled core of sepwise is not installed; install sepwise with pip, or run ./run in its source folder"
        )
    try:
        torch.ops.load_library(library)
    except OSError as error:
        return f"the compiled core of sepwise cannot be loaded by torch {torch.__version__}: {error}"
    return None


LIBRARY = _find()  # the file of the compiled core, None where it is not installed
PROBLEM = _load()  # None, or the sentence that says why there are no compiled operators
CORE = ctypes.CDLL(str(LIBRARY)) if PROBLEM is None else None  # for what must not be an operator


def _look() -> Machine:
    problem, setting, *offers = torch.ops.sepwise.machine()
    return Machine(tuple(offers), setting, problem or None)


# Asked now: a tracer at work would take the question for a part of the program.
MACHINE = _look() if PROBLEM is None else Machine((), "", None)


def kernels() -> list[Kernel]:
    """Every compiled kernel, the preferred first. Raises UnsupportedError without the compiled core.

    >>> [kernel.name for kernel in kernels() if kernel.isa == "portable"]
    ['f32_portable', 'bf16_portable']
    """
    found = []
    for line in _operators().kernels():
        name, isa, dtype, precision, why_not = line.split("\t", 4)
        found.append(Kernel(name, isa, getattr(torch, dtype), precision, why_not or None))
    return found


def packed_weights() -> PackedWeights:
    """What is kept of packed weights. Raises UnsupportedError without the compiled core."""
    return PackedWeights(*_operators().packed_weights())


def forget_packed_weights(idle_seconds: int = 0) -> None:
    """Free the packed weights that no call has used for so long, and the weights that they keep alive.

    idle_seconds    0: all of them; without being asked, calls free those unused for a minute
    Raises UnsupportedError without the compiled core.

    >>> forget_packed_weights()
    >>> packed_weights().kept
    0
    """
    _operators().forget_packed_weights(idle_seconds)


def drop_program(number: int) -> None:
    """Forget a program of the compiled core, at any moment: no tracer at work sees it, as it would see an operator."""
    assert CORE is not None
    CORE.sepwise_drop_program(ctypes.c_int64(number))


def _operators() -> torch._ops._OpNamespace:
    if PROBLEM is not None:
        raise UnsupportedError(PROBLEM)
    return torch.ops.sepwise
