"""The search for the cheapest plan that agrees, on networks whose agreement is a known function of their cost."""

# pyright: reportOptionalMemberAccess=false

from math import nan

import pytest

from sepwise.conversion.cheapest import CLOSE, CONVERSIONS, Search, cheapest
from sepwise.conversion.plan import Agreed, Choice, Plan
from sepwise.errors import BudgetError


def costing(fraction: float) -> Plan:
    return Plan({"conv": Choice("cp", round(fraction * 1e6), "", 100, round(100 * fraction), 9, 9)})


def search(agreement, guess=None, wanted=0.9, least=0.02, most=1.0, plan_at=costing) -> tuple[Search, list[float]]:
    """agreement, guess: of a fraction; returns the fractions of the networks converted as well."""
    converted = []

    def fraction(plan: Plan) -> float:
        return plan.layers["conv"].rank / 1e6  # type: ignore[operator]

    def measure(plan: Plan) -> Agreed:
        converted.append(fraction(plan))
        return Agreed("f1", agreement(fraction(plan)), 3)

    told = Search(wanted, "macs", least, most, plan_at, lambda plan: (guess or agreement)(fraction(plan)), measure)
    return told, converted


def rising(edge: float):
    """Agrees 0.9 at `edge`, better above it and worse below."""
    return lambda fraction: 0.9 * (fraction / edge) ** 0.1


@pytest.mark.parametrize("edge", [0.025, 0.11, 0.5, 0.93])
@pytest.mark.parametrize("blindness", [0.5, 1.0, 2.5], ids=["guess too high", "exact guess", "guess too low"])
def test_what_is_found_agrees_and_little_cheaper_does_not(edge, blindness):
    told, converted = search(rising(edge), guess=rising(edge * blindness))
    plan = cheapest(told)
    at = plan.layers["conv"].rank / 1e6  # type: ignore[operator]
    assert plan.agreement.value >= 0.9
    assert edge <= at * (1 + 1e-9) <= max(edge * CLOSE**2, edge + 2e-6)
    assert len(converted) == len(set(converted)) <= CONVERSIONS


def test_the_cheapest_of_all_is_taken_when_it_agrees():
    told, _ = search(lambda fraction: 0.99)
    assert cheapest(told).layers["conv"].rank == 20_000


def test_a_guess_that_is_always_wrong_costs_conversions_only():
    told, converted = search(rising(0.3), guess=lambda fraction: 0.0)
    assert cheapest(told).layers["conv"].rank >= 300_000  # type: ignore[operator]
    assert converted[0] == 1.0


def test_what_other_budgets_exclude_counts_as_too_cheap():
    told, _ = search(lambda fraction: 0.99, plan_at=lambda at: costing(at) if at >= 0.2 else None)
    assert 200_000 <= cheapest(told).layers["conv"].rank <= 200_000 * CLOSE**2  # type: ignore[operator]


def test_refusals_name_the_best():
    told, converted = search(rising(0.5), most=0.25)
    with pytest.raises(
        BudgetError, match=r"agreement=0\.9 cannot be met: .* 0\.8397 at best, at up to 0\.250 of .*macs"
    ):
        cheapest(told)
    assert max(converted) == 0.25
    told, _ = search(lambda fraction: nan)
    with pytest.raises(BudgetError, match="f1 is undefined on the 3 pictures held out"):
        cheapest(told)
