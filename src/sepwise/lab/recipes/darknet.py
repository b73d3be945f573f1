"""Ghosh's figure 6: separable convolutions in DarkNet.

The paper's table: 6.03 % error with separable convolutions, 11.9 % without, one trial each; its text calls that a
tremendous improvement. Set down before the first trial: the claim holds if the separable network's error is lower
(paired t over seeds, 5 %), and does not hold if it is shown to be higher. Tremendous or not is for the reader: the
difference is given with its interval.

DarkNet's CIFAR classifier (cfg/cifar.cfg), its first layer dense in both; an eighth of the channels at scale small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ... import zoo
from ..classify import SEEDS, by_arm, classify, length
from ..compared import errors_chart, errors_table, ordered, too_few
from ..recipe import Arm, At, Finding, Numbers, Result

__all__ = ["SEEDS", "arms", "findings", "trial"]

WIDTH = {"smoke": 1 / 32, "small": 1 / 8, "paper": 1.0}


def arms(scale: str) -> list[Arm]:
    shared = {"width": WIDTH[scale], **length(scale, rate=0.05)}
    return [Arm(name, {"separable": name == "separable", **shared}) for name in ("dense", "separable")]


def trial(settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    network = zoo.darknet_cifar_separable if settings["separable"] else zoo.darknet_cifar
    return classify(lambda: network(width=settings["width"]), settings, seed, at)


def findings(results: Sequence[Result]) -> list[Finding]:
    errors = by_arm(results)
    if said := too_few("G6", errors, ("dense", "separable")):
        return [said]
    verdict, says = ordered(errors, [("separable", "dense")])
    return [Finding("G6", verdict, says, errors_table(results, "dense"), errors_chart(errors))]
