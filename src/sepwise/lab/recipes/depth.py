"""Do deep separable networks train without residual connections, where dense ones need them?

Stacks of separable or dense blocks (`zoo.stacked`), with and without a shortcut around each block, at three depths;
norm in all of them. Set down before the first trial, at the largest depth, by the difference that the shortcut makes to
the test error, paired over seeds: the claim holds if the shortcut helps dense networks (95 % interval above 0) and
helps separable ones less (95 % interval of the difference of the two above 0); it does not hold if it is shown to help
separable networks, and not shown to help them less than dense ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
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
DEPTHS = {"smoke": (1, 2), "small": (1, 4, 12), "paper": (2, 6, 18)}  # blocks in each of three stages
WIDTH = {"smoke": 4, "small": 8, "paper": 32}
KINDS = ("dense", "separable")


def arms(scale: str) -> list[Arm]:
    return [
        Arm(_name(kind, 3 * depth, residual), {"kind": kind, "depth": depth, "residual": residual, **_shared(scale)})
        for depth in DEPTHS[scale]
        for kind in KINDS
        for residual in (False, True)
    ]


def _shared(scale: str) -> dict[str, Any]:
    return {"width": WIDTH[scale], **length(scale)}


def _name(kind: str, blocks: int, residual: bool) -> str:
    return f"{kind}, {blocks} blocks, {'residual' if residual else 'plain'}"


def trial(settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    def block(i: int, o: int, s: int) -> nn.Module:
        return unit(i, o, 3, s) if settings["kind"] == "dense" else SeparableBlock(i, o, stride=s)

    w, residual = settings["width"], settings["residual"]
    build = partial(Stacked, block, (w, 2 * w, 4 * w), settings["depth"], residual=residual)
    return classify(build, settings, seed, at)


def findings(results: Sequence[Result]) -> list[Finding]:
    errors = by_arm(results)
    depths = sorted({int(arm.split(", ")[1].split()[0]) for arm in errors})
    wanted = [_name(kind, depth, residual) for depth in depths for kind in KINDS for residual in (False, True)]
    if said := too_few("G7", errors, wanted):
        return [said]
    gains = {kind: _gain(errors, kind, depths[-1]) for kind in KINDS}
    helps = {kind: verdict.mean_of(values) for kind, values in gains.items()}
    more = verdict.difference(gains["dense"], gains["separable"])
    decided = NOT_SHOWN
    if helps["dense"].low > 0 and more.low > 0:
        decided = HOLDS
    elif helps["separable"].low > 0 and more.low <= 0:
        decided = FAILS
    says = (
        f"At {depths[-1]} blocks the shortcut lowers the error of dense networks by {helps['dense']} points, of "
        f"separable ones by {helps['separable']}; the first is larger by {more}."
    )
    series = [
        {"name": f"{kind}, {way}", "points": [_point(errors, kind, depth, way == "residual") for depth in depths]}
        for kind in KINDS
        for way in ("plain", "residual")
    ]
    figure = {"kind": "curves", "series": series, "x": "blocks", "y": "test error, %", "log_x": True}
    return [Finding("G7", decided, says, errors_table(results), figure)]


def _gain(errors: dict[str, list[float]], kind: str, depth: int) -> list[float]:
    plain, residual = (errors[_name(kind, depth, way)] for way in (False, True))
    return [p - r for p, r in zip(plain, residual, strict=True)]


def _point(errors: dict[str, list[float]], kind: str, depth: int, residual: bool) -> list[float]:
    found = verdict.mean_of(errors[_name(kind, depth, residual)])
    return [depth, found.mean, found.low, found.high]
