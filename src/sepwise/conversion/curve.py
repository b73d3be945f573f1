"""The same network at other budgets and in other forms, from one survey: what the chosen plan is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from ..errors import BudgetError
from ..graph.network import copy_of
from .apply import filled_layer, nearest_layer
from .budget import Totals
from .plan import Plan
from .planner import least, plan_from
from .survey import Survey
from .times import Times

FRACTIONS = (0.5, 0.35, 0.25, 0.18, 0.125)
FRONT = (
    0.9, 0.7, 0.5, 0.42, 0.35, 0.3, 0.25, 0.21, 0.18, 0.15, 0.125, 0.105, 0.09, 0.075, 0.06, 0.05, 0.04, 0.03, 0.02
)  # fmt: skip


def at_budgets(
    survey: Survey, totals: Totals, fractions: Sequence[float] = FRACTIONS
) -> Iterator[tuple[Plan, nn.Module, nn.Module]]:
    """For each fraction of the dense MACs that can be met: the plan, the network with the survey's fits, and data-free.

    The survey's fits saw the dense network's activations; `convert` refits layer by layer and does better.
    The two networks of a step share their unconverted layers with the survey and are valid until the next step only.
    """
    for fraction in fractions:
        try:
            plan = plan_from(survey, {"macs": fraction}, totals)
        except BudgetError:
            continue
        yield plan, _Lent(survey, plan, fitted=True), _Lent(survey, plan, fitted=False)


def front(
    survey: Survey, totals: Totals, unit: str = "macs", times: Times | None = None, fractions: Sequence[float] = FRONT
) -> list[Plan]:
    """The least harm at each cost: for each fraction that can be met the best plan, exact, no plan twice.

    unit       of the cost, see `check_budget`; "latency" needs `times`
    returns    plans in order of falling cost and rising `harm`
    """
    plans: list[Plan] = []
    lowest = least(survey, unit, totals, times)
    for fraction in sorted({*(f for f in fractions if f > lowest), min(1.0, lowest * (1 + 1e-9))}, reverse=True):
        try:
            plan = plan_from(survey, {unit: fraction}, totals, times)
        except BudgetError:  # rounding, at the very least
            continue
        if not plans or plan.layers != plans[-1].layers:
            plans.append(plan)
    return plans


def in_forms(
    survey: Survey, forms: Sequence[str], budget: Mapping[str, float], totals: Totals
) -> tuple[Plan, nn.Module]:
    """The best plan that uses these forms only, and a network of its own with the survey's fits.

    Raises BudgetError when these forms cannot meet the budget.
    """
    layers = [replace(la, candidates=tuple(c for c in la.candidates if c.form in forms)) for la in survey.layers]
    plan = plan_from(replace(survey, layers=tuple(layers)), budget, totals)
    model = copy_of(survey.network.model)
    for name, layer in _layers(survey, plan, fitted=True).items():
        old = model.get_submodule(name)
        for alias in [n for n, m in model.named_modules(remove_duplicate=False) if m is old]:
            model.set_submodule(alias, layer)
    return plan, model.eval()


def _layers(survey: Survey, plan: Plan, fitted: bool) -> dict[str, nn.Module]:
    """The layers that a plan puts in place of dense ones: with the survey's fits, or nearest in the Frobenius norm."""
    network, found = survey.network, {layer.name: layer for layer in survey.layers}
    layers: dict[str, nn.Module] = {}
    for name, choice in plan.converted.items():
        site = network.site(name)
        assert site is not None
        conv = network.conv(site)
        best = next(c for c in found[name].candidates if (c.form, c.rank) == (choice.form, choice.rank))
        layers[name] = filled_layer(conv, choice, best.fitted) if fitted else nearest_layer(conv, choice)
    return layers


class _Lent(nn.Module):
    """The surveyed network with its layers exchanged during each call, and put back after it."""

    def __init__(self, survey: Survey, plan: Plan, fitted: bool) -> None:
        super().__init__()
        self.network = [survey.network]  # in a list: it is lent, not a child
        self.layers = _layers(survey, plan, fitted)

    def forward(self, x: object) -> object:
        with self._exchanged():
            return self.network[0].model(x)

    @contextmanager
    def _exchanged(self) -> Iterator[None]:
        network = self.network[0]
        dense = {name: network.graph.get_submodule(name) for name in self.layers}
        for name, layer in self.layers.items():
            network.replace(name, layer)
        try:
            yield
        finally:
            for name, layer in dense.items():
                network.replace(name, layer)
