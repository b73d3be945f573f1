"""Are small networks left with too few parameters when their convolutions are made separable?

Stacks of dense and of separable blocks (`zoo.stacked`) at widths down to tiny ones. What separating costs at a width is
the difference of test error, separable minus dense, paired over seeds. Set down before the first trial: the claim holds
if separating costs more at the smallest width than at the largest (95 % interval of the difference above 0), and does
not hold if it is shown to cost less there. Beside it: the same at equal parameters, read off the curves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ...nn.blocks import SeparableBlock
from ...zoo.stacked import Stacked
from ...zoo.unit import unit
from .. import verdict
from ..classify import by_arm, classify, length
from ..compared import errors_table, too_few
from ..ledger import FAILS, HOLDS, NOT_SHOWN
from ..recipe import Arm, At, Finding, Numbers, Result

SEEDS = {"smoke": 2, "small": 5, "paper": 5}
WIDTHS = {"smoke": (2, 4), "small": (2, 4, 8, 16, 32), "paper": (4, 8, 16, 32, 64, 128)}
KINDS = ("dense", "separable")


def arms(scale: str) -> list[Arm]:
    return [
        Arm(_name(kind, width), {"kind": kind, "width": width, **length(scale)})
        for width in WIDTHS[scale]
        for kind in KINDS
    ]


def _name(kind: str, width: int) -> str:
    return f"{kind}, {width}"


def trial(settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    def block(i: int, o: int, s: int) -> nn.Module:
        return unit(i, o, 3, s) if settings["kind"] == "dense" else SeparableBlock(i, o, stride=s)

    w = settings["width"]
    return classify(lambda: Stacked(block, (w, 2 * w, 4 * w), 2), settings, seed, at)


def findings(results: Sequence[Result]) -> list[Finding]:
    errors = by_arm(results)
    widths = sorted({int(arm.split(", ")[1]) for arm in errors})
    if said := too_few("U4", errors, [_name(kind, width) for width in widths for kind in KINDS]):
        return [said]
    costs = {w: _costs(errors, w) for w in widths}
    more = verdict.difference(costs[widths[0]], costs[widths[-1]])
    decided = HOLDS if more.low > 0 else FAILS if more.high < 0 else NOT_SHOWN
    shown = "; ".join(f"{w} channels {verdict.mean_of(costs[w])}" for w in widths)
    says = (
        f"Separating costs, points of test error at a width of the first stage: {shown}. At {widths[0]} channels it "
        f"costs {more} more than at {widths[-1]}."
    )
    parameters = {r.arm: r.numbers["parameters"] for r in results}
    series = [{"name": kind, "points": [_point(errors, parameters, kind, w) for w in widths]} for kind in KINDS]
    figure = {"kind": "curves", "series": series, "x": "parameters", "y": "test error, %", "log_x": True}
    return [Finding("U4", decided, says, errors_table(results), figure)]


def _costs(errors: dict[str, list[float]], width: int) -> list[float]:
    dense, separable = (errors[_name(kind, width)] for kind in KINDS)
    return [s - d for s, d in zip(separable, dense, strict=True)]


def _point(errors: dict[str, list[float]], parameters: dict[str, int], kind: str, width: int) -> list[float]:
    found = verdict.mean_of(errors[_name(kind, width)])
    return [parameters[_name(kind, width)], found.mean, found.low, found.high]
