"""Does an inserted 1x1 convolution with an activation add depth cheaply?

A stack of dense blocks (3x3, norm, ReLU), and the same with a 1x1 convolution after each block: alone, with a norm, or
with norm and ReLU. Without the activation it adds no function, only parameters: that is the control. Set down before
the first trial: the claim holds if the network with the activation has a lower error than both the plain one and the
control (paired t over seeds, Holm's correction, 5 %), and does not hold if it is shown to have a higher one than
either. What it costs is in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ...zoo.stacked import Stacked
from ...zoo.unit import relu, unit
from ..classify import SEEDS, by_arm, classify, length
from ..compared import errors_chart, errors_table, ordered, too_few
from ..recipe import Arm, At, Finding, Numbers, Result

__all__ = ["SEEDS", "arms", "findings", "trial"]

ARMS = ("plain", "1×1", "1×1, norm", "1×1, norm, ReLU")
WIDTH = {"smoke": 4, "small": 12, "paper": 64}


def arms(scale: str) -> list[Arm]:
    return [Arm(name, {"inserted": name, "width": WIDTH[scale], **length(scale)}) for name in ARMS]


def trial(settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    def block(i: int, o: int, s: int) -> nn.Module:
        first = unit(i, o, 3, s)
        return first if settings["inserted"] == "plain" else nn.Sequential(first, _inserted(settings["inserted"], o))

    w = settings["width"]
    return classify(lambda: Stacked(block, (w, 2 * w, 4 * w), 2), settings, seed, at)


def _inserted(name: str, channels: int) -> nn.Module:
    if name == "1×1":
        return nn.Conv2d(channels, channels, 1)
    return unit(channels, channels, 1, activation=relu if name.endswith("ReLU") else None)


def findings(results: Sequence[Result]) -> list[Finding]:
    errors = by_arm(results)
    if said := too_few("U5", errors, ARMS):
        return [said]
    best = "1×1, norm, ReLU"
    verdict, says = ordered(errors, [(best, "plain"), (best, "1×1, norm")])
    return [Finding("U5", verdict, says, errors_table(results, "plain"), errors_chart(errors))]
