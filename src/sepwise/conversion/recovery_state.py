"""What an interrupted recovery goes on from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .saved_state import State

FORMAT = "sepwise-recovery/2"


@dataclass
class Saved(State):
    """The state of a recovery.

    composed    whether separable layers are trained as the dense convolution they stand for
    rate        of learning, at its highest
    step, seconds    done so far
    now, search      state of the network and of its optimizers
    best, loss       the best state of the network so far, and its loss on the held-out pictures
    """

    composed: bool
    rate: float
    step: int = 0
    seconds: float = 0.0
    loss: float = float("inf")
    now: dict[str, Tensor] = field(default_factory=dict)
    search: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
