"""`--recover`: how long a converted network is trained, on what, and what that won."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from .. import records
from ..conversion import recover
from ..conversion.agreed import METRIC
from ..errors import BudgetError
from ..measure import Agreement
from .progress import Progress

UNITS = {"min": "minutes", "minute": "minutes", "minutes": "minutes", "epoch": "epochs", "epochs": "epochs"}


@dataclass(frozen=True)
class Recovery:
    """How long: epochs or minutes, the other one None; on what: batches of unlabelled pictures (N, C, H, W)."""

    epochs: float | None
    minutes: float | None
    pictures: Sequence[Tensor]

    def __str__(self) -> str:
        length = f"{self.epochs:g} epochs" if self.epochs else f"{self.minutes:g} minutes"
        return f"{length} on {sum(map(len, self.pictures)):,} pictures"


def read_length(text: str) -> tuple[float | None, float | None]:
    """(epochs, minutes): "3epochs" is (3.0, None), "20min" is (None, 20.0). Raises BudgetError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip())
    if not found or found[2] not in UNITS or not float(found[1]):
        raise BudgetError(f"--recover {text!r}: expected a length, such as 20min or 3epochs")
    number = float(found[1])
    return (number, None) if UNITS[found[2]] == "epochs" else (None, number)


def recovered(
    separable: nn.Module,
    dense: nn.Module,
    recovery: Recovery,
    checkpoint: Path,
    progress: Progress,
) -> tuple[nn.Module, list[list[float]]]:
    """The network trained, and its losses on held-out pictures: [how far training had come, loss] each."""
    losses: list[list[float]] = []
    better = recover(
        separable,
        dense,
        recovery.pictures,
        epochs=recovery.epochs,
        minutes=recovery.minutes,
        checkpoint=checkpoint,
        progress=progress,
        measured=lambda done, loss: losses.append([done, loss]),
    )
    return better, losses


def won(recovery: Recovery, losses: Sequence[Sequence[float]], before: Agreement, after: Agreement) -> records.Record:
    """What training did to the agreement on pictures that it did not see."""
    metric = METRIC[after.kind or "tensors"]
    value = {"metric": metric, "before": before.to_dict()[metric], "after": after.to_dict()[metric]}
    value |= {"length": str(recovery), "pictures": sum(map(len, recovery.pictures)), "held_out_losses": losses}
    return records.here("recovery", value)
