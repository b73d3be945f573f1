"""What a budget may limit, whether one is well written, and what the dense network has of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ..errors import BudgetError
from ..measure import cost
from .candidates import Candidate, LayerSurvey
from .survey import Survey

COUNTED = ("macs", "parameters", "weight_bytes")
UNITS = (*COUNTED, "latency")
AGREEMENT = "agreement"


class Totals(NamedTuple):
    """The whole dense network, layers outside the survey included.

    macs            multiply-accumulates for one picture
    parameters      numbers that can be learned
    weight_bytes    of everything that a file of its weights holds
    """

    macs: int
    parameters: int
    weight_bytes: int


def totals_of(found: Survey, example: Tensor) -> Totals:
    """What the dense network that was surveyed costs for one picture of the size of `example`."""
    model = found.network.model
    total = cost(model, example[:1])
    held = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    return Totals(total.macs, total.parameters, held)


def counted(layer: LayerSurvey, choice: Candidate | None, unit: str) -> int:
    """What a layer costs with a candidate, or dense, in a unit that can be counted."""
    if unit == "macs":
        return layer.macs if choice is None else choice.macs
    parameters = layer.conv.parameters if choice is None else choice.parameters
    return parameters * layer.itemsize if unit == "weight_bytes" else parameters


def check_budget(budget: Mapping[str, float]) -> dict[str, float]:
    """A budget as plain data. Raises BudgetError for an unknown unit or a fraction outside (0, 1]."""
    if not budget:
        raise BudgetError('the budget is empty; give for example {"macs": 0.25}: a quarter of the dense network')
    for unit, fraction in budget.items():
        if unit not in (*UNITS, AGREEMENT):
            raise BudgetError(f"budget {unit!r}: expected one of {', '.join((*UNITS, AGREEMENT))}")
        good = not isinstance(fraction, bool) and isinstance(fraction, int | float)
        if unit == AGREEMENT and not (good and 0 < fraction < 1):
            raise BudgetError(
                f"budget agreement={fraction!r}: expected the least agreement with the dense network, between 0 and 1"
            )
        if not (good and 0 < fraction <= 1):
            raise BudgetError(
                f"budget {unit}={fraction!r}: expected a fraction of the dense network, above 0 and at most 1"
            )
    return {unit: float(fraction) for unit, fraction in budget.items()}
