"""What a layer could become: each form and rank that was fitted, what it costs and what it does."""

from __future__ import annotations

from dataclasses import dataclass

from ..factor import Rank
from ..geometry import ConvShape
from .fit import Fitted


@dataclass(frozen=True)
class Candidate:
    """One form and rank of one layer, with its fitted weights.

    effect    |output changed - output|^2 / |output - its mean|^2 on the probe pictures, only this layer converted
    """

    form: str
    rank: Rank
    macs: int
    parameters: int
    energy_kept: float
    effect: float
    fitted: Fitted


@dataclass(frozen=True)
class LayerSurvey:
    """One layer: what it is, what it costs dense, and what it could become.

    size        spatial size of its input
    itemsize    bytes of one weight
    """

    name: str
    conv: ConvShape
    macs: int
    candidates: tuple[Candidate, ...]
    size: tuple[int, ...] = ()
    itemsize: int = 4
