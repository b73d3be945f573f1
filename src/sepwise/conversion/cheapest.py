"""The cheapest plan whose converted network still agrees with the dense one: found by converting and measuring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isnan, sqrt

from ..errors import BudgetError
from .plan import Agreed, Plan

CONVERSIONS = 8  # at most
CLOSE = 1.04  # cost of what agrees over cost of what does not: nearer need not be looked
STRIDES = (1.25, 1.5, 2.0, 3.0)  # first steps from a guess, until both sides are known


@dataclass(frozen=True)
class Search:
    """What is looked for, and how to find out.

    wanted       least agreement
    unit         of the cost that is made small, a fraction of the dense network's
    least, most  fractions between which plans exist
    plan_at      the best plan of at most this cost; None where other budgets leave none. There is one at `most`
    guess        agreement at a cost, cheap and rather too low: says where to begin
    measure      agreement of the converted network of a plan; expensive
    """

    wanted: float
    unit: str
    least: float
    most: float
    plan_at: Callable[[float], Plan | None]
    guess: Callable[[Plan], float]
    measure: Callable[[Plan], Agreed]


def cheapest(search: Search) -> Plan:
    """The cheapest plan found whose measured agreement is at least what is wanted; it holds that measurement.

    Cheaper networks are taken to agree less, so costs are searched by halving, on a logarithmic scale, until a network
    that agrees costs at most 4 % more than one that does not, or eight networks were converted.
    Raises BudgetError, naming the best that was measured, when no network agrees as well.
    """
    tried: dict[str, Agreed] = {}
    low, high = 0.0, float("inf")  # the dearest that fails, and the cheapest that holds
    best: Plan | None = None
    at, stride, closest = _first(search), 0, 0.0
    for _ in range(4 * CONVERSIONS):
        if len(tried) == CONVERSIONS:
            break
        at = min(search.most, max(search.least, at))
        plan = search.plan_at(at)
        agreed = None if plan is None else _measured(search, plan, tried)
        if plan is not None and agreed is not None and agreed.value >= search.wanted:
            high, best = at, replace(plan, agreement=agreed)
            if at <= search.least:
                break
        else:
            closest = max(closest, agreed.value if agreed else closest)
            low = max(low, at)
            if at >= search.most:
                break
        if best is None or not low:
            step = STRIDES[min(stride, len(STRIDES) - 1)]
            at, stride = (at * step if best is None else at / step), stride + 1
        elif high / low <= CLOSE:
            break
        else:
            at = sqrt(low * high)
    if best is None:
        raise BudgetError(
            f"the budget agreement={search.wanted:g} cannot be met: the networks converted reached {closest:.4f} at "
            f"best, at up to {low:.3f} of the dense network's {search.unit}"
        )
    return best


def _measured(search: Search, plan: Plan, tried: dict[str, Agreed]) -> Agreed:
    """Of the converted network; of the same choices only once."""
    key = str([(name, choice.form, choice.rank) for name, choice in plan.layers.items()])
    if key not in tried:
        tried[key] = search.measure(plan)
    agreed = tried[key]
    if isnan(agreed.value):
        raise BudgetError(
            f"the agreement {agreed.metric} is undefined on the {agreed.pictures} pictures held out, as when no map "
            "has a value above 0.5: give other pictures"
        )
    return agreed


def _first(search: Search) -> float:
    """Where to begin: the cheapest that the guess finds good enough."""
    low, high = search.least, search.most
    while high / low > 1.1:
        middle = sqrt(low * high)
        plan = search.plan_at(middle)
        if plan is not None and search.guess(plan) >= search.wanted:
            high = middle
        else:
            low = middle
    return high
