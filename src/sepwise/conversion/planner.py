"""From a survey and a budget to a plan: the least harm that the budget allows, chosen by an exact solver."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from ..errors import BudgetError
from ..extras import require
from .plan import Choice, Plan
from .survey import Candidate, LayerSurvey, Survey

UNITS = ("macs", "parameters")


def check_budget(budget: Mapping[str, float]) -> dict[str, float]:
    """A budget as plain data. Raises BudgetError for an unknown unit or a fraction outside (0, 1]."""
    if not budget:
        raise BudgetError('the budget is empty; give for example {"macs": 0.25}: a quarter of the dense network')
    for unit, fraction in budget.items():
        if unit not in UNITS:
            raise BudgetError(f"budget {unit!r}: expected one of {', '.join(UNITS)}")
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction <= 1:
            raise BudgetError(
                f"budget {unit}={fraction!r}: expected a fraction of the dense network, above 0 and at most 1"
            )
    return {unit: float(fraction) for unit, fraction in budget.items()}


def plan_from(survey: Survey, budget: Mapping[str, float], totals: tuple[int, int]) -> Plan:
    """Choose one candidate, or dense, for each layer: minimal summed effect on the output under the budget.

        minimise   sum over layers of  effect[layer, choice]
        such that  one choice a layer,  cost(choices) + cost(all other layers) <= fraction * cost(dense network)

    totals     (MACs, parameters) of the whole dense network, layers outside the survey included
    The effects are added up as if layers did not influence each other; the solver is SciPy's MILP (HiGHS), exact.
    Raises BudgetError, naming the best that can be reached, when the budget cannot be met.
    """
    wanted = check_budget(budget)
    options = [(layer, choice) for layer in survey.layers for choice in (None, *layer.candidates)]
    picked = _solve(survey, options, wanted, totals)
    layers = {}
    for layer, choice in picked:
        layers[layer.name] = _choice(layer, choice)
    for name, reason in survey.left_out.items():
        layers.setdefault(name, Choice("dense", None, reason, 0, 0, 0, 0))
    saved = [sum(_cost(la, None, u) - _cost(la, c, u) for la, c in picked) for u in UNITS]
    return Plan(
        layers=layers,
        batch_norm=survey.batch_norm,
        budget=wanted,
        macs=(totals[0], totals[0] - saved[0]),
        parameters=(totals[1], totals[1] - saved[1]),
        size=survey.size,
    )


Option = tuple[LayerSurvey, Candidate | None]


def _solve(survey: Survey, options: list[Option], budget: dict[str, float], totals: tuple[int, int]) -> list[Option]:
    optimize = require("scipy.optimize", "planning under a budget")
    if not survey.layers:
        return _nothing_to_choose(budget)
    effect = np.array([choice.effect if choice else 0.0 for _, choice in options])
    one_each = np.array([[float(option[0] is layer) for option in options] for layer in survey.layers])
    constraints = [optimize.LinearConstraint(one_each, 1, 1)]
    limits = {}
    for unit, fraction in budget.items():
        total = totals[UNITS.index(unit)]
        costs = np.array([_cost(layer, choice, unit) for layer, choice in options], dtype=float)
        fixed = total - sum(_cost(layer, None, unit) for layer in survey.layers)
        least = fixed + sum(min(_cost(la, c, unit) for c in (None, *la.candidates)) for la in survey.layers)
        limits[unit] = least / total
        if least > fraction * total:
            raise BudgetError(
                f"the budget {unit}={fraction:g} cannot be met: these forms reach {least / total:.3f} at best, "
                f"of which {fixed / total:.3f} is in layers that are not converted"
            )
        constraints.append(optimize.LinearConstraint(costs[None] / total, -np.inf, fraction - fixed / total))
    # The solver stops within 1e-6 of the best objective. Solved again in units of the best sum so far, and without
    # the options that alone exceed it, small effects are told apart too.
    unit_effect, result = effect.max() or 1.0, None
    for _ in range(3):
        usable = effect <= unit_effect * (1 + 1e-9)
        with _remarks_to_stderr():
            result = optimize.milp(
                np.where(usable, effect, 0.0) / unit_effect,
                constraints=constraints,
                integrality=np.ones(len(options)),
                bounds=optimize.Bounds(0, usable.astype(float)),
                options={"mip_rel_gap": 0.0},
            )
        if result.x is None:
            break
        harm = float(effect @ result.x.round())
        if not 0 < harm < unit_effect:
            break
        unit_effect = harm
    if result is None or result.x is None:
        reach = ", ".join(f"{unit}={least:.3f}" for unit, least in limits.items())
        raise BudgetError(f"the budgets cannot all be met at once; each alone can go down to {reach}")
    return [option for option, taken in zip(options, result.x, strict=True) if taken > 0.5]


def _nothing_to_choose(budget: dict[str, float]) -> list[Option]:
    for unit, fraction in budget.items():
        if fraction < 1:
            raise BudgetError(
                f"the budget {unit}={fraction:g} cannot be met: no layer can be converted, 1.000 is the best"
            )
    return []


@contextmanager
def _remarks_to_stderr() -> Iterator[None]:
    """HiGHS prints remarks of its own straight to file descriptor 1, in the middle of our JSON; they go to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _cost(layer: LayerSurvey, choice: Candidate | None, unit: str) -> int:
    if unit == "macs":
        return layer.macs if choice is None else choice.macs
    return layer.conv.parameters if choice is None else choice.parameters


def _choice(layer: LayerSurvey, candidate: Candidate | None) -> Choice:
    macs, parameters = layer.macs, layer.conv.parameters
    if candidate is None:
        why = "converting it harms the output more than it saves" if layer.candidates else _why_no_candidate(layer)
        return Choice("dense", None, why, macs, macs, parameters, parameters, 1.0, 0.0)
    others = [c for c in layer.candidates if c.form != candidate.form and c.macs <= candidate.macs * 1.02]
    why = f"changes the output by {candidate.effect:.1e} alone"
    if others:
        rival = min(others, key=lambda c: c.effect)
        why += f"; {rival.form} at this cost by {rival.effect:.1e}"
    return Choice(
        candidate.form,
        candidate.rank,
        why,
        macs,
        candidate.macs,
        parameters,
        candidate.parameters,
        candidate.energy_kept,
        candidate.effect,
    )


def _why_no_candidate(layer: LayerSurvey) -> str:
    kernel = layer.conv.geometry.kernel
    if max(kernel) == 1:
        return "pointwise already: its kernel of one pixel has nothing to separate"
    if layer.conv.groups == layer.conv.in_channels > 1:
        return "depthwise already, and too small a kernel to split further at a gain"
    return f"no form saves multiplications with {layer.conv.in_channels} input channels"
