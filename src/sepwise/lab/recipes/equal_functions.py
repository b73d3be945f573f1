"""Are the drawings that are said to be one function one function?

Claims A9 and G3 are exact: weights are mapped from one drawing to the other (`sepwise.nn.blocks`), and outputs and
gradients of both are compared in float64 on random numbers. Set down: equal means a largest difference of at most 1e-12
of the largest number, and every comparison must see a planted fault (one weight with its sign turned).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.blocks import (
    ReformulatedInception,
    ResNeXtModule,
    SeparableBlock,
    as_grouped,
    as_hybrid,
    as_hybrid_reformulated,
    as_simplified,
    as_split_sum,
)
from ..ledger import FAILS, HOLDS
from ..recipe import Arm, At, Finding, Numbers, Result

SEEDS = {"smoke": 1, "small": 10, "paper": 100}
EQUAL, SEEN = 1e-12, 1e-6
Draw = Callable[[], nn.Module]
PAIRS: dict[str, tuple[str, Draw, Callable[[Any], nn.Module]]] = {
    "depthwise = grouped": ("A9", lambda: SeparableBlock(6, 8, depth_multiplier=2, stride=2), lambda b: as_grouped(b)),
    "separable = split, filter, mix, sum": ("G3", lambda: SeparableBlock(6, 8), as_split_sum),
    "separable with multiplier 2 = split, filter, mix, sum": (
        "G3",
        lambda: SeparableBlock(6, 8, depth_multiplier=2, stride=2),
        as_split_sum,
    ),
    "separable with shortcut = hybrid": ("G3", lambda: SeparableBlock(6, 8, identity=True), as_hybrid),
    "separable with shortcut = hybrid, reformulated": (
        "G3",
        lambda: SeparableBlock(6, 8, identity=True),
        as_hybrid_reformulated,
    ),
}


def arms(scale: str) -> list[Arm]:
    return [Arm(name, {"pair": name}) for name in PAIRS]
