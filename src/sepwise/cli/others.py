"""What else there was to choose: other budgets, the front of all of them, one form alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from .. import records
from ..conversion import Plan, Survey, at_budgets, in_forms, totals_of
from ..conversion.agreed import METRIC, agreement_on, answer_of
from ..conversion.budget import COUNTED
from ..conversion.curve import front
from ..conversion.times import Times
from ..errors import BudgetError
from ..measure.agreement import kind_of
from .latency import Latency
from .progress import Progress
from .request import Job


def beside(found: Survey, plan: Plan, job: Job) -> dict[str, nn.Module | str]:
    """For each form that `plan` is not made of alone: the network with only this form, or why there is none."""
    networks: dict[str, nn.Module | str] = {}
    for form in job.beside:
        if {choice.form for choice in plan.converted.values()} != {form}:
            try:
                counts = {u: f for u, f in plan.budget.items() if u in COUNTED} or {"macs": plan.macs[1] / plan.macs[0]}
                networks[form] = in_forms(found, [form], counts, totals_of(found, job.fit[0]))[1]
            except BudgetError as error:
                networks[form] = str(error)
    return networks


def alone(
    form: str, model: nn.Module | str, dense: nn.Module, pictures: Sequence[Tensor], timed: dict[str, Latency]
) -> records.Record:
    """What one form alone reaches at the same budget: agreement, and speed in stock PyTorch and fused."""
    if isinstance(model, str):
        return records.here("alone", {"form": form, "why": model})
    agreed, time = agreement_on(model, dense, pictures), timed[form]
    metric = METRIC[agreed.kind or "tensors"]
    value = {"form": form, "metric": metric, "agreement": agreed.to_dict()[metric]}
    value |= {"latency_ratio": time.stock_ratio, "fused_latency_ratio": time.fused_ratio}
    return records.here("alone", value)


def curve_of(
    found: Survey,
    dense: nn.Module,
    pictures: Sequence[Tensor],
    facts: Sequence[records.Record],
    job: Job,
    progress: Progress,
) -> list[records.Record]:
    """Agreement against MACs: this conversion, and the survey's fits and no data at all at other budgets."""
    metric = METRIC[kind_of(answer_of(dense(pictures[0])))]
    told = {(r.what, r.about.get("network")): r.value for r in facts}
    share = told["network.macs", "separable"] / told["network.macs", "dense"]
    points = [_point(share, told[f"agreement.{metric}", None], metric, "this conversion")]
    steps = list(at_budgets(found, totals_of(found, job.fit[0])))
    few = pictures[: max(8, 200_000 // pictures[0].shape[2:].numel())]
    for done, (plan, fitted, nearest) in enumerate(steps):
        progress("curve", done, len(steps))
        share = plan.macs[1] / plan.macs[0]
        for model, kind in ((fitted, "other budget"), (nearest, "data-free")):
            points.append(_point(share, getattr(agreement_on(model, dense, few), metric), metric, kind))
    progress("curve", len(steps), len(steps))
    return points


def front_of(
    found: Survey,
    plan: Plan,
    times: Times | None,
    curve: Sequence[records.Record],
    job: Job,
) -> Iterator[records.Record]:
    """The least predicted harm at each cost, in the unit that was planned in, with the agreement where it is known."""
    unit = job.minimise if "agreement" in job.budget else next(iter(job.budget))
    totals = totals_of(found, job.fit[0])
    known = {r.value["macs_fraction"]: r.value for r in curve if r.about["kind"] == "other budget"}
    mine = next(r.value for r in curve if r.about["kind"] == "this conversion")
    plans = front(found, totals, unit, times)
    for each in sorted([*plans, plan], key=lambda p: -_cost(p, unit)):
        if each is not plan and each.layers == plan.layers:
            continue
        share = each.macs[1] / each.macs[0]
        measured = mine if each is plan else known.get(share) if unit == "macs" else None
        value = {"unit": unit, "cost": _cost(each, unit), "harm": each.harm, "macs_fraction": share}
        value |= {"parameters_fraction": each.parameters[1] / each.parameters[0]}
        value |= {"latency_fraction": each.latency and each.latency.predicted}
        value |= {"metric": mine["metric"], "agreement": measured and measured["agreement"]}
        yield records.here("front", value, about={"kind": "this conversion" if each is plan else "best at its cost"})


def _cost(plan: Plan, unit: str) -> float:
    """What a plan leaves of the dense network, a fraction."""
    if unit == "latency":
        assert plan.latency is not None
        return plan.latency.predicted
    dense, planned = getattr(plan, unit)
    return planned / dense


def _point(share: float, value: float | None, metric: str, kind: str) -> records.Record:
    label = f"{1 / share:.1f}x fewer"
    return records.here(
        "curve", {"macs_fraction": share, "agreement": value, "metric": metric, "label": label}, about={"kind": kind}
    )
