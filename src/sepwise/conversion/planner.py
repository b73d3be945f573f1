"""From a survey and a budget to a plan: the least harm that the budget allows, chosen by an exact solver."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from ..errors import BudgetError
from ..extras import require
from .budget import AGREEMENT, Totals, check_budget, counted
from .candidates import Candidate, LayerSurvey
from .plan import Choice, Plan
from .survey import Survey
from .times import Times


def plan_from(survey: Survey, budget: Mapping[str, float], totals: Totals, times: Times | None = None) -> Plan:
    """Choose one candidate, or dense, for each layer: minimal summed effect on the output under the budget.

        minimise   sum over layers of  effect[layer, choice]
        such that  one choice a layer,  cost(choices) + cost(all the rest) <= fraction * cost(dense network)

    budget     fractions by unit; "agreement" is none of them, as only conversions can tell it: `sepwise.plan`
    totals     of the dense network: see `totals_of`
    times      of all layers and candidates, needed for "latency"; with any other budget the plan tells them, too
    The effects are added up as if layers did not influence each other; the solver is SciPy's MILP (HiGHS), exact.
    Raises BudgetError, naming the best that can be reached, when the budget cannot be met.
    """
    wanted = check_budget(budget)
    if AGREEMENT in wanted:
        raise BudgetError("an agreement is met by converting and measuring, not from a survey alone: use sepwise.plan")
    if "latency" in wanted and times is None:
        raise BudgetError("the budget latency needs the times of all candidates; sepwise.plan measures them")
    options = [(layer, choice) for layer in survey.layers for choice in (None, *layer.candidates)]
    picked = _solve(survey, options, wanted, totals, times)
    layers = {}
    for layer, choice in picked:
        layers[layer.name] = _choice(layer, choice, times)
    for name, reason in survey.left_out.items():
        layers[name] = (
            replace(layers[name], why=reason) if name in layers else Choice("dense", None, reason, 0, 0, 0, 0)
        )

    def change(unit: str) -> tuple[int, int]:
        whole = getattr(totals, unit)
        return whole, whole - sum(counted(la, None, unit) - counted(la, c, unit) for la, c in picked)

    return Plan(
        layers=layers,
        batch_norm=survey.batch_norm,
        budget=wanted,
        macs=change("macs"),
        parameters=change("parameters"),
        weight_bytes=change("weight_bytes"),
        size=survey.size,
        latency=None if times is None else times.of_plan(layers),
    )


def least(survey: Survey, unit: str, totals: Totals, times: Times | None = None) -> float:
    """The smallest fraction of the dense network that the candidates reach in one unit."""
    costs = _Costs(survey, unit, totals, times)
    return costs.least / costs.total


Option = tuple[LayerSurvey, Candidate | None]


class _Costs:
    """What each option costs in one unit, and what is spent whatever is chosen."""

    def __init__(self, survey: Survey, unit: str, totals: Totals, times: Times | None) -> None:
        self.unit, self.times = unit, times
        if unit == "latency":
            assert times is not None
            self.total, whole = times.dense_ms, times.base_ms
        else:
            self.total = whole = float(getattr(totals, unit))
        self.fixed = whole - sum(self.of(layer, None) for layer in survey.layers)
        self.least = self.fixed + sum(min(self.of(la, c) for c in (None, *la.candidates)) for la in survey.layers)

    def of(self, layer: LayerSurvey, choice: Candidate | None) -> float:
        if self.unit == "latency":
            assert self.times is not None
            return self.times.ms(layer.name, choice and (choice.form, choice.rank))
        return counted(layer, choice, self.unit)


def _solve(
    survey: Survey, options: Sequence[Option], budget: Mapping[str, float], totals: Totals, times: Times | None
) -> list[Option]:
    optimize = require("scipy.optimize", "planning under a budget")
    if not survey.layers:
        return _nothing_to_choose(budget)
    effect = np.array([choice.effect if choice else 0.0 for _, choice in options])
    one_each = np.array([[float(option[0] is layer) for option in options] for layer in survey.layers])
    constraints = [optimize.LinearConstraint(one_each, 1, 1)]
    limits = {}
    for unit, fraction in budget.items():
        costs = _Costs(survey, unit, totals, times)
        limits[unit] = costs.least / costs.total
        if costs.least > fraction * costs.total:
            raise BudgetError(
                f"the budget {unit}={fraction:g} cannot be met: these forms reach {limits[unit]:.3f} at best, "
                f"of which {costs.fixed / costs.total:.3f} is in layers that are not converted"
            )
        each = np.array([costs.of(*option) for option in options], dtype=float)
        room = fraction - costs.fixed / costs.total
        constraints.append(optimize.LinearConstraint(each[None] / costs.total, -np.inf, room))
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
        reach = ", ".join(f"{unit}={fraction:.3f}" for unit, fraction in limits.items())
        raise BudgetError(f"the budgets cannot all be met at once; each alone can go down to {reach}")
    return [option for option, taken in zip(options, result.x, strict=True) if taken > 0.5]


def _nothing_to_choose(budget: Mapping[str, float]) -> list[Option]:
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


def _choice(layer: LayerSurvey, candidate: Candidate | None, times: Times | None) -> Choice:
    took = times and times.time(layer.name, candidate and (candidate.form, candidate.rank))
    dense = times and times.time(layer.name, None)
    shared = {
        "macs_before": layer.macs,
        "macs_after": counted(layer, candidate, "macs"),
        "parameters_before": layer.conv.parameters,
        "parameters_after": counted(layer, candidate, "parameters"),
        "milliseconds": dense and took and (dense.ms, took.ms),
        "kernel": took and took.kernel,
    }
    if candidate is None:
        why = "converting it harms the output more than it saves" if layer.candidates else _why_no_candidate(layer)
        return Choice("dense", None, why, energy_kept=1.0, effect=0.0, **shared)
    others = [c for c in layer.candidates if c.form != candidate.form and c.macs <= candidate.macs * 1.02]
    why = f"changes the output by {candidate.effect:.1e} alone"
    if others:
        rival = min(others, key=lambda c: c.effect)
        why += f"; {rival.form} at this cost by {rival.effect:.1e}"
    kept = {"energy_kept": candidate.energy_kept, "effect": candidate.effect}
    return Choice(candidate.form, candidate.rank, why, **kept, **shared)


def _why_no_candidate(layer: LayerSurvey) -> str:
    kernel = layer.conv.geometry.kernel
    if max(kernel) == 1:
        return "pointwise already: its kernel of one pixel has nothing to separate"
    if layer.conv.groups == layer.conv.in_channels > 1:
        return "depthwise already, and too small a kernel to split further at a gain"
    return f"no form saves multiplications with {layer.conv.in_channels} input channels"
