"""What a conversion is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..conversion import Plan
from ..conversion.plan import BatchNorm
from ..sources.models import LoadedModel
from .recovering import Recovery


@dataclass(frozen=True)
class Job:
    """What to convert, on what, and where to put it.

    fit        calibration pictures, batches (N, C, H, W)
    shown      held-out pictures: names and tensors (1, C, H, W), for measuring and showing
    plan       carried out as it is; None: made for `budget` with `forms`
    minimise   what the cheapest plan is the cheapest in, where the budget asks for an agreement
    beside     forms, each of which is measured alone at the same budget, with the survey's fits
    onnx       the network is also written as ONNX
    compare    other ways to be so cheap are measured too
    recovery   trains the network that was fitted; None: it stays as it is
    options    what the user asked for, by name; `resume` goes on from an unfinished conversion with the same ones
    """

    loaded: LoadedModel
    fit: Sequence[Tensor]
    fitted_on: str
    shown: Sequence[tuple[str, Tensor]]
    shown_on: str
    out: Path
    overwrite: bool
    title: str
    budget: dict[str, float] = field(default_factory=dict)
    minimise: str = "macs"
    forms: Sequence[str] = ()
    batch_norm: BatchNorm = "fold"
    plan: Plan | None = None
    iterations: int = 8
    beside: Sequence[str] = ()
    recovery: Recovery | None = None
    compare: bool = False
    onnx: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    resume: bool = False
