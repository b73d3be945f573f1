"""Are the drawings that are said to be one function one function?

Claims A9 and G3 are exact: weights are mapped from one drawing to the other (`sepwise.nn.blocks`), and outputs and
gradients of both are compared in float64 on random numbers. Set down: equal means a largest difference of at most 1e-12
of the largest number, and every comparison must see a planted fault (one weight with its sign turned).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...nn import blocks
from ...nn.blocks import Block, carried
from ..ledger import FAILS, HOLDS, NOT_SHOWN
from ..recipe import Arm, At, Finding, Numbers, Result

SEEDS = {"smoke": 2, "small": 10, "paper": 100}
EQUAL, SEEN = 1e-12, 1e-6

# claim, what is drawn, and the map to its twin
PAIRS: dict[str, tuple[str, Callable[[], Block], Callable[[Any], Block]]] = {
    "depthwise = grouped, groups = channels": ("A9", lambda: blocks.SegmentedBlock(6, 12), blocks.as_grouped),
    "the same with stride 2 and 5×5 kernels": (
        "A9",
        lambda: blocks.SegmentedBlock(6, 6, stride=2, kernel_size=5),
        blocks.as_grouped,
    ),
    "separable = split, filter, mix, sum": ("G3", lambda: blocks.SeparableBlock(6, 8), blocks.as_split_sum),
    "the same with multiplier 2 and stride 2": (
        "G3",
        lambda: blocks.SeparableBlock(6, 8, depth_multiplier=2, stride=2),
        blocks.as_split_sum,
    ),
    "hybrid = its reformulation": ("G3", lambda: blocks.Hybrid(6, 8), blocks.as_hybrid_reformulated),
    "hybrid = separable with a shortcut": ("G3", lambda: blocks.Hybrid(6, 8), blocks.as_separable),
    "hybrid without shortcut = separable": ("G3", lambda: blocks.Hybrid(6, 8, identity=False), blocks.as_separable),
}


def arms(scale: str) -> list[Arm]:
    return [Arm(name, {"pair": name}) for name in PAIRS]


def trial(settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    _, draw, there = PAIRS[settings["pair"]]
    torch.manual_seed(seed)
    block = draw().double().train()
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64)
    twin, broken = there(block), there(block)
    with torch.no_grad():
        max(broken.parameters(), key=lambda p: p.dim()).flatten()[0].neg_()
    return _differences(block, twin, x, "") | _differences(block, broken, x, "fault in ")


def _differences(block: Block, twin: Block, x: Tensor, what: str) -> Numbers:
    """Largest difference of outputs, and of gradients of all weights and of the input, over the largest number."""
    (y, gradients), (wanted, wanted_gradients) = _run(twin, x), _run(block, x)
    moved = carried(wanted_gradients, block, twin)
    pairs = [(gradients[name], moved[name]) for name in gradients]
    largest = max(float(b.abs().max()) for _, b in pairs)
    gap = max(float((a - b).abs().max()) for a, b in pairs) / largest
    return {f"{what}output": float((y - wanted).abs().max() / wanted.abs().max()), f"{what}gradients": gap}


def _run(block: Block, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    block.zero_grad()
    y = block(x)
    (y.square().sum() + y.sum()).backward()
    return y.detach(), {name: p.grad for name, p in block.named_parameters() if p.grad is not None}


def findings(results: Sequence[Result]) -> list[Finding]:
    return [_finding(claim, [r for r in results if PAIRS[r.arm][0] == claim]) for claim in ("A9", "G3")]


def _finding(claim: str, results: Sequence[Result]) -> Finding:
    if not results:
        return Finding(claim, NOT_SHOWN, "No pair has been compared.")
    table = []
    for arm in dict.fromkeys(r.arm for r in results):
        mine = [r.numbers for r in results if r.arm == arm]
        row: dict[str, Any] = {"pair": arm, "seeds": len(mine)}
        for name in ("output", "gradients"):
            row[name] = max(n[name] for n in mine)
            row[f"{name}, with a fault"] = min(n[f"fault in {name}"] for n in mine)
        table.append(row)
    worst = max(max(row["output"], row["gradients"]) for row in table)
    seen = min(min(row["output, with a fault"], row["gradients, with a fault"]) for row in table)
    says = (
        f"{len(table)} pairs, {len(results)} trials in float64: outputs and gradients differ by at most {worst:.0e} of "
        f"the largest number; with one weight's sign turned by at least {seen:.0e}."
    )
    verdict = NOT_SHOWN if seen < SEEN else HOLDS if worst <= EQUAL else FAILS
    return Finding(claim, verdict, says, [{k: _shown(v) for k, v in row.items()} for row in table])


def _shown(value: Any) -> Any:
    return f"{value:.0e}" if isinstance(value, float) else value
