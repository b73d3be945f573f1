"""The solver against brute force, and budgets that are wrong or cannot be met."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false

import os
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from sepwise.conversion.budget import Totals, check_budget
from sepwise.conversion.candidates import Candidate, LayerSurvey
from sepwise.conversion.fit import Fitted
from sepwise.conversion.planner import plan_from
from sepwise.conversion.survey import Survey
from sepwise.conversion.times import Time, Times
from sepwise.errors import BudgetError
from sepwise.geometry import ConvShape, Geometry

NOTHING = Fitted((), torch.zeros(1), 0.0)
CONV = ConvShape(8, 8, Geometry.of((3, 3)))  # 576 weights
OTHERS = Totals(700, 90, 400)  # of layers that no survey saw; 40 bytes belong to buffers


def surveyed(layers: list[tuple[int, list[tuple[int, int, float]]]]) -> Survey:
    """layers: dense MACs, and for each candidate (MACs, parameters, effect)."""
    found = tuple(
        LayerSurvey(
            f"layer{i}",
            CONV,
            macs,
            tuple(Candidate("cp", r + 1, m, p, 0.5, e, NOTHING) for r, (m, p, e) in enumerate(options)),
        )
        for i, (macs, options) in enumerate(layers)
    )
    return Survey(found, {}, "fold", None, (8, 8))  # type: ignore[arg-type]


def totals(survey: Survey) -> Totals:
    parameters = sum(layer.conv.parameters for layer in survey.layers)
    macs = sum(layer.macs for layer in survey.layers)
    return Totals(OTHERS.macs + macs, OTHERS.parameters + parameters, OTHERS.weight_bytes + 4 * parameters)


def timed(survey: Survey) -> Times:
    """Times that no other cost predicts: a candidate of many parameters is fast, one of few is slow."""
    layers = {
        layer.name: {None: Time(layer.macs / 100, "stock")}
        | {("cp", c.rank): Time(abs(c.parameters - 300) / 60, "one operation") for c in layer.candidates}
        for layer in survey.layers
    }
    base = 3 + sum(times[None].ms for times in layers.values())
    return Times(1.1 * base, "eager channels_last", base, layers, 1, (8, 8))


def brute_force(survey: Survey, budget: dict[str, float]) -> float | None:
    """The least summed effect of all combinations that meet the budget; None when none does."""
    times, best = timed(survey), None
    total = {**totals(survey)._asdict(), "latency": times.dense_ms}
    for picks in product(*((None, *layer.candidates) for layer in survey.layers)):
        spent, effect = {**OTHERS._asdict(), "latency": 3.0}, 0.0
        for layer, pick in zip(survey.layers, picks, strict=True):
            parameters = pick.parameters if pick else layer.conv.parameters
            spent["macs"] += pick.macs if pick else layer.macs
            spent["parameters"] += parameters
            spent["weight_bytes"] += 4 * parameters
            spent["latency"] += times.layers[layer.name][("cp", pick.rank) if pick else None].ms
            effect += pick.effect if pick else 0.0
        met = all(spent[unit] <= fraction * total[unit] + 1e-9 for unit, fraction in budget.items())
        if met and (best is None or effect < best):
            best = effect
    return best


def summed_effect(plan) -> float:
    return sum(choice.effect for choice in plan.layers.values())


candidates = st.tuples(st.integers(20, 900), st.integers(5, 500), st.floats(1e-5, 2.0))
fractions = st.sampled_from([0.95, 0.8, 0.6, 0.45])
layers = st.lists(st.tuples(st.integers(300, 1500), st.lists(candidates, max_size=4)), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    layers,
    st.dictionaries(st.sampled_from(["macs", "parameters", "weight_bytes", "latency"]), fractions, min_size=1),
)
def test_the_plan_is_as_good_as_brute_force(found, budget):
    survey = surveyed(found)
    best = brute_force(survey, budget)
    if best is None:
        with pytest.raises(BudgetError, match="cannot"):
            plan_from(survey, budget, totals(survey), timed(survey))
        return
    plan = plan_from(survey, budget, totals(survey), timed(survey))
    assert summed_effect(plan) == pytest.approx(best, rel=1e-9, abs=1e-9)
    for unit in ("macs", "parameters"):
        dense, planned = getattr(plan, unit)
        assert planned <= budget.get(unit, 1e9) * dense
        assert planned == dense - sum(
            getattr(c, f"{unit}_before") - getattr(c, f"{unit}_after") for c in plan.layers.values()
        )
    assert plan.weight_bytes[1] <= budget.get("weight_bytes", 1e9) * plan.weight_bytes[0]
    assert plan.weight_bytes[0] - plan.weight_bytes[1] == 4 * (plan.parameters[0] - plan.parameters[1])
    assert plan.latency.predicted <= budget.get("latency", 1e9) + 1e-9
    assert plan.latency.predicted_ms == pytest.approx(3 + sum(c.milliseconds[1] for c in plan.layers.values()))
    assert plan.budget == budget


def test_effects_of_very_different_size_are_told_apart():
    # a hopeless candidate of effect 1e3 must not blur the choice between those of 1e-5
    survey = surveyed([(1000, [(500, 100, 2e-5), (400, 100, 1e3)]), (1000, [(500, 100, 1e-5), (400, 100, 1e3)])])
    plan = plan_from(survey, {"macs": 0.85}, totals(survey))
    assert plan.layers["layer0"].form == "dense"
    assert plan.layers["layer1"].rank == 1


SURVEY = surveyed(
    [
        (1000, [(700, 300, 0.01), (400, 200, 0.05), (100, 60, 0.5)]),
        (1400, [(900, 400, 0.02), (500, 200, 0.1), (200, 40, 0.9)]),
        (300, []),
    ]
)


def test_without_pressure_everything_stays_dense():
    plan = plan_from(SURVEY, {"macs": 1.0}, totals(SURVEY))
    assert plan.converted == {}
    assert plan.macs == (3400, 3400)
    assert plan.layers["layer0"].why == "converting it harms the output more than it saves"
    assert "no form saves multiplications with 8 input channels" in plan.layers["layer2"].why
    assert (plan.layers["layer0"].effect, plan.layers["layer0"].energy_kept) == (0.0, 1.0)


def test_a_tighter_budget_never_harms_less():
    harms = []
    for percent in range(100, 40, -3):
        plan = plan_from(SURVEY, {"macs": percent / 100}, totals(SURVEY))
        assert plan.macs[1] <= percent / 100 * plan.macs[0]
        harms.append(summed_effect(plan))
    assert harms == sorted(harms)
    assert harms[0] == 0 < harms[-1]


def test_a_budget_that_cannot_be_met_names_the_best_that_can():
    # least: 700 elsewhere + 100 + 200 + 300 of 3400
    with pytest.raises(
        BudgetError, match=r"macs=0\.3 cannot be met: these forms reach 0\.382 at best, .* 0\.206 is in"
    ):
        plan_from(SURVEY, {"macs": 0.3}, totals(SURVEY))
    assert plan_from(SURVEY, {"macs": 0.383}, totals(SURVEY)).macs[1] == 1300
    with pytest.raises(BudgetError, match=r"parameters=0\.1 cannot be met"):
        plan_from(SURVEY, {"macs": 0.9, "parameters": 0.1}, totals(SURVEY))


def test_two_budgets_that_exclude_each_other():
    # one candidate saves MACs and the other parameters, as blueprint and depthwise do at a stride
    survey = surveyed([(1000, [(100, 570, 0.1), (990, 10, 0.1)])])
    plan = plan_from(survey, {"macs": 0.6, "parameters": 1.0}, totals(survey))
    assert plan.layers["layer0"].rank == 1
    with pytest.raises(BudgetError, match=r"cannot all be met at once; each alone .* macs=0\.471, parameters=0\.150"):
        plan_from(survey, {"macs": 0.6, "parameters": 0.3}, totals(survey))


def test_budgets_that_a_survey_alone_cannot_meet():
    with pytest.raises(BudgetError, match="latency needs the times of all candidates"):
        plan_from(SURVEY, {"latency": 0.5}, totals(SURVEY))
    with pytest.raises(BudgetError, match="an agreement is met by converting and measuring"):
        plan_from(SURVEY, {"agreement": 0.9}, totals(SURVEY))


def test_a_corrected_prediction_is_what_was_measured():
    times = timed(SURVEY)
    plan = plan_from(SURVEY, {"latency": 0.6}, totals(SURVEY), times)
    assert plan.latency.measured is None
    slower = times.corrected(plan.layers, 1.3 * plan.latency.predicted)
    assert slower.predicted_ms(plan.layers) == pytest.approx(1.3 * plan.latency.predicted_ms)
    assert slower.scale > 1.3  # the rest of the network is what it was
    assert slower.predicted_ms({}) == times.predicted_ms({}) == times.base_ms


def test_nothing_to_convert():
    nothing = Survey((), {"conv": "it is called 2 times"}, "fold", None, (8, 8))  # type: ignore[arg-type]
    plan = plan_from(nothing, {"macs": 1.0}, OTHERS)
    assert plan.layers["conv"].why == "it is called 2 times"
    assert plan.macs == (700, 700)
    with pytest.raises(BudgetError, match=r"macs=0\.5 cannot be met: no layer can be converted"):
        plan_from(nothing, {"macs": 0.5}, OTHERS)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({}, "the budget is empty"),
        ({"flops": 0.5}, "budget 'flops': expected one of macs, parameters, weight_bytes, latency, agreement"),
        ({"macs": 0}, "macs=0: expected a fraction"),
        ({"macs": -0.5}, "above 0 and at most 1"),
        ({"macs": 1.5}, r"macs=1\.5: expected a fraction"),
        ({"macs": 25}, "macs=25"),
        ({"macs": "0.5"}, r"macs='0\.5'"),
        ({"macs": float("nan")}, "macs=nan"),
        ({"macs": True}, "macs=True"),
        ({"agreement": 1}, "agreement=1: expected the least agreement"),
        ({"agreement": 95}, "agreement=95: .* between 0 and 1"),
    ],
)
def test_budgets_that_are_none(budget, message):
    with pytest.raises(BudgetError, match=message):
        check_budget(budget)


def test_a_budget_is_read_as_fractions():
    assert check_budget({"macs": 1, "parameters": 0.25}) == {"macs": 1.0, "parameters": 0.25}


def test_what_the_solver_prints_stays_off_stdout(monkeypatch, capfd):
    solve = optimize.milp

    def talkative(*arguments, **options):
        os.write(1, b"a remark from compiled code")
        return solve(*arguments, **options)

    monkeypatch.setattr(optimize, "milp", talkative)
    found = surveyed([(1000, [(100, 50, 0.1)])])
    assert plan_from(found, {"macs": 0.9}, totals(found)).converted
    printed = capfd.readouterr()
    assert (printed.out, "a remark" in printed.err) == ("", True)
