"""Where an interrupted recovery goes on from: a file that appears whole, read without executing pickles."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import WeightsError
from ..files import whole_file

FORMAT = "sepwise-recovery/2"


@dataclass
class Saved:
    """The state of a recovery.

    about       what it was started with; another start does not go on from it
    composed    whether separable layers are trained as the dense convolution they stand for
    rate        of learning, at its highest
    step, seconds    done so far
    now, search      state of the network and of its optimizers
    best, loss       the best state of the network so far, and its loss on the held-out pictures
    """

    about: dict[str, Any]
    composed: bool
    rate: float
    step: int = 0
    seconds: float = 0.0
    loss: float = float("inf")
    now: dict[str, Tensor] = field(default_factory=dict)
    search: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None


def write(path: Path, state: Saved) -> None:
    with whole_file(path) as aside:
        torch.save({"format": FORMAT} | {name: getattr(state, name) for name in Saved.__dataclass_fields__}, aside)


def read(path: Path, about: dict[str, Any]) -> Saved | None:
    """The state in a file; None when there is no file. Raises for a file that is none, or of another recovery."""
    if not path.exists():
        return None
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        if held.pop("format") != FORMAT:
            raise KeyError("format")
        state = Saved(**held)
    except Exception as error:
        raise WeightsError(f"{path} is no saved recovery of this version ({type(error).__name__}); remove it") from None
    different = [name for name in about if state.about.get(name) != about[name]]
    if different:
        raise WeightsError(
            f"{path} belongs to another recovery (other {', '.join(different)}); remove it or name another file"
        )
    return state
