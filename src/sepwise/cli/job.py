"""The main job: a dense network and pictures in; a separable network, its plan, a program and a report out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__, records, report
from ..conversion import (
    Plan,
    Survey,
    at_budgets,
    check_budget,
    convert,
    export,
    in_forms,
    save_program,
    survey,
    totals_of,
)
from ..conversion.agreed import METRIC, agreement_on, answer_of
from ..conversion.budget import COUNTED
from ..conversion.curve import front
from ..conversion.plan import BatchNorm
from ..conversion.planning import parts_for, plan_within
from ..conversion.times import Times
from ..errors import BudgetError
from ..extras import require
from ..files import whole_folder
from ..measure import Agreement, cost
from ..measure.agreement import kind_of
from ..nn import FactoredConv
from ..sources.models import LoadedModel
from ..sources.weights import save_weights
from .latency import Latency, latency
from .outcome import Outcome
from .progress import Progress
from .results import RECORDS, check_results
from .summary import outcome

PICTURED = 4


@dataclass(frozen=True)
class Job:
    """What to convert, on what, and where to put it.

    fit        calibration pictures, batches (N, C, H, W)
    shown      held-out pictures: names and tensors (1, C, H, W), for measuring and showing
    plan       carried out as it is; None: made for `budget` with `forms`
    minimise   what the cheapest plan is the cheapest in, where the budget asks for an agreement
    beside     forms, each of which is measured alone at the same budget, with the survey's fits
    """

    loaded: LoadedModel
    fit: Sequence[Tensor]
    fitted_on: str
    shown: Sequence[tuple[str, Tensor]]
    shown_on: str
    out: Path
    overwrite: bool
    title: str
    budget: dict[str, float] = field(default_factory=dict)
    minimise: str = "macs"
    forms: Sequence[str] = ()
    batch_norm: BatchNorm = "fold"
    plan: Plan | None = None
    iterations: int = 8
    beside: Sequence[str] = ()


def run(job: Job) -> Outcome:
    """Do the whole job; the folder appears at the very end, whole."""
    check_results(job.out, job.overwrite)
    for module in ("safetensors", "jinja2", "PIL"):
        require(module, "converting a model")
    if job.plan is None:
        check_budget(job.budget)
    dense, pictures = job.loaded.model, [x for _, x in job.shown]
    with Progress() as progress:
        found, times = None, None
        plan, fit = job.plan, job.fit
        if plan is None:
            fit, held = parts_for(job.budget, job.fit)  # what was measured to agree was fitted without `held`
            found = survey(dense, fit, forms=job.forms, batch_norm=job.batch_norm, progress=progress)
            plan, times = plan_within(dense, found, fit[0], fit, held, job.budget, job.minimise, progress)
        separable = convert(dense, plan, fit, iterations=job.iterations, progress=progress)
        progress("measure", 0, 3)
        program = export(separable, pictures[0])
        progress("measure", 1, 3)
        agreed = agreement_on(separable, dense, pictures)
        progress("measure", 2, 3)
        others = {} if found is None else _beside(found, plan, job)
        networks = {form: model for form, model in others.items() if isinstance(model, nn.Module)}
        timed = latency(dense, {"separable": separable, **networks}, pictures[0])
        progress("measure", 3, 3)
        facts = _facts(job, plan, dense, separable, agreed, timed["separable"])
        facts += [_alone(form, model, dense, pictures, timed) for form, model in others.items()]
        if found is not None:
            curve = _curve(found, dense, pictures, facts, job, progress)
            facts += [*curve, *_front(found, plan, times, curve, job)]
    with whole_folder(job.out, job.overwrite) as folder:
        save_weights(separable, folder / "model.safetensors")
        plan.save(folder / "plan.json")
        save_program(program, folder / "model.pt2")
        facts += [*_pictures(job, dense, separable, agreed.kind, folder), *_kernels(dense, separable, plan, folder)]
        records.append(folder / RECORDS, facts)
        report.build(folder)
        files = ["report.html", "model.safetensors", "model.pt2", "plan.json", RECORDS]
        return outcome(job.loaded.name, job.shown_on, job.out, files, plan, facts)


def _beside(found: Survey, plan: Plan, job: Job) -> dict[str, nn.Module | str]:
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


def _alone(
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


def _facts(
    job: Job,
    plan: Plan,
    dense: nn.Module,
    separable: nn.Module,
    agreed: Agreement,
    timed: Latency,
) -> list[records.Record]:
    x = job.shown[0][1]
    size = list(x.shape[2:])
    about = {
        "model": job.loaded.name,
        "title": job.title,
        "budget": plan.budget,
        "planned_latency": plan.latency and vars(plan.latency) | {"predicted": plan.latency.predicted},
        "planned_agreement": plan.agreement and vars(plan.agreement),
        "method": "least squares on the dense layers' answers, layer by layer; no labels, no training",
        "fitted_on": job.fitted_on,
        "shown_on": job.shown_on,
        "command": " ".join(["sepwise", *sys.argv[1:]]),
        "sepwise": __version__,
        "torch": torch.__version__,
    }
    facts = [records.here("conversion", about)]
    costs = {"dense": cost(dense, x), "separable": cost(separable, x)}
    for name, model in (("dense", dense), ("separable", separable)):
        total = costs[name]
        held = sum(t.numel() * t.element_size() for t in model.state_dict().values())
        which = {"network": name}
        facts += [
            records.here("network.parameters", total.parameters, about=which),
            records.here("network.macs", total.macs, unit="MACs", about={**which, "size": size}),
            records.here("network.weight_bytes", held, unit="bytes", about=which),
        ]
    facts += timed.facts()
    measured = {k: v for k, v in agreed.to_dict().items() if k not in ("kind", "values", "not_finite")}
    held_out = {"pictures": "held-out", "count": len(job.shown)}
    facts += [records.here(f"agreement.{k}", v, n=len(job.shown), about=held_out) for k, v in measured.items()]
    convs = {n: m for n, m in dense.named_modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)}
    for name, choice in plan.layers.items():
        if all(name in c.modules for c in costs.values()):  # counted on the pictures shown, not on those fitted to
            macs = {
                "macs_before": costs["dense"].modules[name].macs,
                "macs_after": costs["separable"].modules[name].macs,
            }
            value = {"name": name, **_shape(convs.get(name)), **vars(choice), **macs}
            facts.append(records.here("layer", value, about={"size": size}))
        elif choice.macs_before:
            value = {"name": name, **_shape(convs.get(name)), **vars(choice)}
            facts.append(records.here("layer", value, about={"size": list(plan.size)}))
    return facts


def _shape(conv: nn.Module | None) -> dict[str, Any]:
    if not isinstance(conv, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return {}
    return {
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "kernel": list(conv.kernel_size),
    }


def _curve(
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


def _front(
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


@torch.no_grad()
def _pictures(
    job: Job, dense: nn.Module, separable: nn.Module, kind: str | None, folder: Path
) -> Iterator[records.Record]:
    """The first held-out pictures with what both networks make of them."""
    (folder / "pictures").mkdir()
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (job.loaded.mean, job.loaded.std))
    for number, (name, x) in enumerate(job.shown[:PICTURED]):
        before, after = answer_of(dense(x))[0], answer_of(separable(x))[0]
        plain = ((x[0] * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        value: dict[str, Any] = {"name": name, "input": f"pictures/{number}-input.png"}
        image = require("PIL.Image", "writing pictures").fromarray(plain.squeeze())
        image.save(folder / value["input"])
        if kind == "maps" and before.dim() == 3:
            maps = {
                "dense": report.pictures.map_picture(before[0].numpy()),
                "separable": report.pictures.map_picture(after[0].clamp(0, 1).numpy()),
                "difference": report.pictures.difference_picture((after - before)[0].numpy()),
            }
            for which, picture in maps.items():
                value[which] = f"pictures/{number}-{which}.png"
                picture.save(folder / value[which])
            alone = Agreement("maps").update(after[None], before[None])
            value |= {"f1": alone.f1, "mean_absolute_difference": alone.mean_absolute_difference}
        elif kind == "classes":
            value |= {"dense_top": _top(before), "separable_top": _top(after)}
        yield records.here("picture", value)


def _top(scores: Tensor, count: int = 3) -> list[list[Any]]:
    best = scores.softmax(0).topk(min(count, len(scores)))
    return [[f"class {i}", p] for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def _kernels(dense: nn.Module, separable: nn.Module, plan: Plan, folder: Path) -> Iterator[records.Record]:
    """Kernels of converted layers, dense and as the separable chain composes them."""
    (folder / "kernels").mkdir()
    for number, name in enumerate(plan.converted):
        try:
            before, after = dense.get_submodule(name).weight, separable.get_submodule(name)
        except AttributeError:
            continue
        if not isinstance(after, FactoredConv) or not isinstance(before, Tensor) or before.dim() != 4:
            continue
        value = {"layer": name}
        for which, weight in (("before", before), ("after", after.dense_weight())):
            value[which] = f"kernels/{number}-{which}.png"
            report.pictures.kernel_grid(weight.detach().float().numpy()).save(folder / value[which])
        yield records.here("kernels", value)
