"""`sepwise.plan`: a survey of the network, then the best plan under a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from ..errors import BudgetError
from ..factor import FORMS
from .agreed import agreement_on, hold_out, measure_of
from .apply import convert
from .budget import AGREEMENT, UNITS, Totals, check_budget, totals_of
from .cheapest import Search, cheapest
from .clock import Clock, planned_network
from .plan import Agreed, BatchNorm, Plan
from .planner import least, plan_from
from .sizes import resized
from .survey import Progress, Survey, survey
from .times import Times

TOLERANCE = 0.03  # of a latency budget: what timing the same network twice may differ by
CORRECTIONS = 2


def plan(
    model: nn.Module,
    example: Tensor,
    *,
    budget: Mapping[str, float],
    minimise: str = "macs",
    batches: Sequence[Tensor] | None = None,
    forms: Sequence[str] = tuple(FORMS),
    batch_norm: BatchNorm = "fold",
    progress: Progress | None = None,
) -> Plan:
    """Choose a form and a rank for each layer, so that the network's output changes least under a budget.

    model       left unchanged
    example     an input (N, C, *size) of the size to plan for; stands in for `batches` when there are none
    budget      one or several of these, all of which the plan meets:
                "macs", "parameters", "weight_bytes"    0.25 for a quarter of the whole dense network's
                "latency"     0.4 for two fifths of the time that the dense network takes in its own fastest form in
                              stock PyTorch, batch 1, on this machine with its present threads. Candidates are timed
                              as `sepwise.fuse` runs them, and the whole network is measured before the plan is
                              returned. Times of layers are kept between runs, see docs/method.md
                "agreement"   0.95: the cheapest plan whose converted network agrees with the dense one at least so
                              well on a quarter of the pictures that is held out; F1 of maps, share of the same first
                              class, else correlation. Takes a few conversions
    minimise    what "cheapest" means when an agreement is to be kept: one of the other four
    batches     calibration pictures, unlabelled, of any one size; each candidate is fitted to them and its effect on
                the network's output measured on the first few
    forms       forms to choose from; leaving a layer dense is always a candidate
    batch_norm  "fold" into the convolution before the fit, or "keep"
    Raises BudgetError when the budget cannot be met (naming the best that can), ModelError for a model that cannot be
    followed, PictureError for an agreement without two pictures, MissingExtraError without SciPy.

    >>> import torch, sepwise
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3))
    >>> pictures = torch.randn(8, 8, 12, 12)
    >>> chosen = sepwise.plan(model, pictures, budget={"macs": 0.5})
    >>> chosen.macs[1] <= 0.5 * chosen.macs[0]
    True
    >>> smaller = sepwise.convert(model, chosen, [pictures])
    >>> smaller(pictures).shape
    torch.Size([8, 8, 8, 8])
    >>> alike = sepwise.plan(model, pictures, budget={"agreement": 0.8}, minimise="parameters")
    >>> alike.agreement.metric, alike.agreement.value >= 0.8, alike.parameters[1] < alike.parameters[0]
    ('correlation', True, True)
    """
    wanted = check_budget(budget)
    fit, held = parts_for(wanted, batches or [example])
    found = survey(model, fit, forms=forms, batch_norm=batch_norm, progress=progress)
    return plan_within(model, found, example, fit, held, wanted, minimise, progress)[0]


def parts_for(budget: Mapping[str, float], batches: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """(pictures to survey and fit on, pictures to measure on): the latter only where a budget asks for agreement."""
    return hold_out(batches) if AGREEMENT in budget else (list(batches), [])


def plan_within(
    model: nn.Module,
    found: Survey,
    example: Tensor,
    fit: Sequence[Tensor],
    held: Sequence[Tensor],
    budget: Mapping[str, float],
    minimise: str = "macs",
    progress: Progress | None = None,
) -> tuple[Plan, Times | None]:
    """The plan for a survey already made of `model` on `fit`, and the times that it knows, if time matters.

    The rest as for `plan`, and `parts_for`.
    """
    if minimise not in UNITS:
        raise BudgetError(f"minimise={minimise!r}: expected one of {', '.join(UNITS)}")
    found = resized(found, example)
    totals, times, clock = totals_of(found, example), None, None
    counts = {unit: fraction for unit, fraction in budget.items() if unit != AGREEMENT}
    if "latency" in budget or (AGREEMENT in budget and minimise == "latency"):
        clock = Clock(found, example, progress=progress)
        times = clock.times()
    if "latency" in budget:
        assert clock is not None
        assert times is not None
        chosen, times = plan_for_latency(found, counts, totals, clock, times)
        if AGREEMENT not in budget:
            return chosen, times
    if AGREEMENT not in budget:
        return plan_from(found, budget, totals), None

    def measure(plan: Plan) -> Agreed:
        metric, value = measure_of(
            agreement_on(convert(model, plan, fit, progress=progress), found.network.model, held)
        )
        return Agreed(metric, value, sum(len(b) for b in held))

    def guess(plan: Plan) -> float:
        return measure_of(agreement_on(planned_network(found, plan), found.network.model, held))[1]

    def plan_at(fraction: float) -> Plan | None:
        try:
            return plan_from(found, counts | {minimise: fraction}, totals, times)
        except BudgetError:
            return None

    most = counts.get(minimise, 1.0)
    plan_from(found, counts | {minimise: most}, totals, times)  # refuses, with its reason, what nothing can meet
    floor = min(most, least(found, minimise, totals, times) * (1 + 1e-9))
    search = Search(budget[AGREEMENT], minimise, floor, most, plan_at, guess, measure)
    chosen = cheapest(search)
    if clock is not None:
        assert chosen.latency is not None
        measured = clock.measured(chosen)
        if "latency" in budget and measured > budget["latency"] * (1 + TOLERANCE):
            raise BudgetError(
                f"the budget latency={budget['latency']:g} was predicted to be met, but the whole network takes "
                f"{measured:.3f} of the dense one's time; other programs may be at work on this machine"
            )
        chosen = replace(chosen, latency=replace(chosen.latency, measured=measured))
    return replace(chosen, budget=dict(budget)), times


def plan_for_latency(
    found: Survey, budget: Mapping[str, float], totals: Totals, clock: Clock, times: Times | None = None
) -> tuple[Plan, Times]:
    """The best plan under a budget, its latency predicted from the layers and then measured on the whole network.

    Where the network misses the budget, its layers are timed anew, what is still unexplained scales all candidates,
    and another plan is made: at most twice.
    returns    the plan, and the times that it was made with at last
    Raises BudgetError, naming what was measured, when none of the networks holds the budget.
    """
    times = clock.times() if times is None else times
    wanted, best = budget["latency"], float("inf")
    for _ in range(1 + CORRECTIONS):
        plan = plan_from(found, budget, totals, times)
        assert plan.latency is not None
        measured = clock.measured(plan)
        if measured <= wanted * (1 + TOLERANCE):
            return replace(plan, latency=replace(plan.latency, measured=measured)), times
        best = min(best, measured)
        times = clock.again(times, plan).corrected(plan.layers, measured)
    raise BudgetError(
        f"the budget latency={wanted:g} was predicted to be met, but the whole network takes {best:.3f} of the dense "
        f"one's time at best, after {CORRECTIONS} corrections; other programs may be at work on this machine"
    )
