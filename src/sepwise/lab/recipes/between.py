"""Chollet's figure 10: does an activation between the depthwise and the pointwise step hurt?

The network of recipe figure4 with one thing or another between the two steps of its separable blocks; after the block
always norm and ReLU. Set down before the first trial: the claim holds if nothing is better than ELU and ELU better than
ReLU, both shown by paired t over seeds (Holm's correction, 5 %); it does not hold if one of the two is shown to be the
other way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ...nn.blocks import SeparableBlock
from ...zoo.stacked import Stacked
from ..classify import SEEDS, by_arm, classify, length
from ..compared import errors_chart, errors_table, ordered, too_few
from ..recipe import Arm, At, Finding, Numbers, Result

__all__ = ["SEEDS", "arms", "findings", "trial"]

BETWEEN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "ELU": {"between": "elu"},
    "ReLU": {"between": "relu"},
    "norm": {"norm_between": True},
    "norm and ReLU": {"norm_between": True, "between": "relu"},
}
WIDTH = {"smoke": 8, "small": 16, "paper": 64}


def arms(scale: str) -> list[Arm]:
    return [Arm(name, {**own, "width": WIDTH[scale], **length(scale)}) for name, own in BETWEEN.items()]


def trial(settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    norm = nn.BatchNorm2d if settings.get("norm_between") else None

    def block(i: int, o: int, s: int) -> SeparableBlock:
        return SeparableBlock(i, o, stride=s, between=settings.get("between"), between_norm=norm)

    w = settings["width"]
    return classify(lambda: Stacked(block, (w, 2 * w, 4 * w), 2), settings, seed, at)


def findings(results: Sequence[Result]) -> list[Finding]:
    errors = by_arm(results)
    if said := too_few("G4", errors, BETWEEN):
        return [said]
    verdict, says = ordered(errors, [("nothing", "ELU"), ("ELU", "ReLU")])
    return [Finding("G4", verdict, says, errors_table(results, "nothing"), errors_chart(errors))]
