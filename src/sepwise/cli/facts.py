"""What was converted, what it costs before and after, what each layer became: the records of a conversion."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from .. import __version__, records
from ..conversion import Plan
from ..measure import Agreement, cost
from .latency import Latency
from .request import Job


def facts_of(
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
        "method": "least squares on the dense layers' answers, layer by layer; no labels, "
        + (f"then training by distillation: {job.recovery}" if job.recovery else "no training"),
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
