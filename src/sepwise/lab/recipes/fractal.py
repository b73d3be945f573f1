"""Ghosh's figure 5: separable convolutions in FractalNet.

The paper's text says that they have "little to no impact", its table that they lower the error from 7.61 % to 6.15 %,
one trial each. Both readings are set down before the first trial: the claim of the text holds if the two networks are
equivalent within MARGIN points (two one-sided paired tests, 5 %) and does not hold if they differ (paired t, 5 %); what
is said beside it is whether the table's direction is seen.

FractalNet with 3 columns; at scale small 3 blocks of 8, 16 and 32 channels, at scale paper the published one (5 blocks,
64 to 512 channels, dropout and drop-path).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...zoo.fractalnet import FractalNet
from ..classify import SEEDS, by_arm, classify, length
from ..compared import errors_chart, errors_table, no_impact, too_few
from ..recipe import Arm, At, Finding, Numbers, Result

__all__ = ["SEEDS", "arms", "findings", "trial"]

MARGIN = 0.5  # points
WIDTHS = {"smoke": (4, 8), "small": (8, 16, 32), "paper": (64, 128, 256, 512, 512)}
DROPOUT = {"smoke": 0.0, "small": 0.0, "paper": 0.4}


def arms(scale: str) -> list[Arm]:
    shared = {"widths": list(WIDTHS[scale]), "dropout": DROPOUT[scale], **length(scale, rate=0.05)}
    return [Arm(name, {"separable": name == "separable", **shared}) for name in ("dense", "separable")]


def trial(settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    def build() -> FractalNet:
        return FractalNet(settings["widths"], separable=settings["separable"], dropout=settings["dropout"])

    return classify(build, settings, seed, at)


def findings(results: Sequence[Result]) -> list[Finding]:
    errors = by_arm(results)
    if said := too_few("G5", errors, ("dense", "separable")):
        return [said]
    verdict, says = no_impact(errors["separable"], errors["dense"], MARGIN)
    return [Finding("G5", verdict, says, errors_table(results, "dense"), errors_chart(errors))]
