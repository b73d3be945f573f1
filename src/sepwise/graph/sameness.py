"""Whether a network that was rewritten answers as the original does, within what rounding explains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import ModelError
from ..measure.timing import TOLERANCES
from ..ops.separable_conv2d.cpu import precision_asked
from .network import copy_of, sentence

# Largest difference accepted, relative to the largest value of an output. Folding rounds every weight once and sums run
# in another order, layer after layer: on networks of 13 to 52 layers that made 1.4e-6 in float32, 2.5e-3 in float16 and
# 1.9e-2 in bfloat16 at most (docs/fuse.md). Where PyTorch is allowed coarser products, float32 is granted as much.
BUDGETS = {torch.float64: 1e-10, torch.float32: 1e-4, **TOLERANCES}
FLOAT32 = {"highest": 1e-4, "high": 1e-3, "medium": 5e-2}
# Some networks round worse by themselves. Two answers that are rounded differently may lie as far apart as each lies
# from the exact one, and the largest of many differences varies: measured, up to 2.7 times.
OWN_ROUNDINGS, MOST = 8, 5e-2


def difference(found: Any, wanted: Any) -> tuple[float, float]:
    """(largest |found - wanted| / largest |wanted|, budget for it), of the output that comes nearest to its budget.

    found, wanted    outputs of two networks: tensors, or tuples, lists and dicts of them; only floats are compared,
                     within the larger budget of their dtypes
    Infinite where shapes differ, or where one is NaN or infinite and the other is not the same.
    """
    xs, ys = ([t for t in pytree.tree_leaves(o) if isinstance(t, Tensor)] for o in (found, wanted))
    if [t.shape for t in xs] != [t.shape for t in ys]:
        return float("inf"), 0.0
    pairs = [
        (_relative(x, y), max(budget_of(x.dtype), budget_of(y.dtype)))
        for x, y in zip(xs, ys, strict=True)
        if y.is_floating_point()
    ]
    return max(pairs, key=lambda pair: pair[0] / pair[1], default=(0.0, budget_of(torch.float32)))


def judged(found: Any, wanted: Any, model: nn.Module, x: Tensor) -> tuple[float, float]:
    """As `difference`, of what was made of a model; the budget also holds what the model's own rounding excuses.

    wanted    what the model answers to `x`
    """
    gap, budget = difference(found, wanted)
    return gap, budget if gap <= budget else max(budget, own_budget(model, x, wanted))


def budget_of(dtype: torch.dtype) -> float:
    """The largest relative difference accepted of outputs in `dtype`."""
    return FLOAT32[precision_asked(compiling=False)] if dtype is torch.float32 else BUDGETS[dtype]


def own_budget(model: nn.Module, x: Tensor, wanted: Any) -> float:
    """What the rounding of the network itself excuses: some times its distance from its answer in float64.

    wanted    what it answers to `x`
    0 for a network that cannot run in float64, or already does.
    """
    try:
        exact = answer(copy_of(model).double(), x.double(), "in float64")
    except ModelError:
        return 0.0
    gap, _ = difference(wanted, exact)
    return min(MOST, OWN_ROUNDINGS * gap)


@torch.no_grad()
def answer(model: Callable[..., Any], x: Tensor, what: str) -> Any:
    """What a network answers to a copy of `x`. Raises ModelError, beginning with `what`, when it cannot."""
    try:
        return model(x.clone())
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{what}: {sentence(error)}") from error


def _relative(x: Tensor, y: Tensor) -> float:
    x, y = x.double(), y.double()
    finite = y.isfinite()
    if not torch.equal(x.isfinite(), finite) or not torch.equal(x[~finite].nan_to_num(), y[~finite].nan_to_num()):
        return float("inf")
    gap = float((x - y)[finite].abs().max()) if bool(finite.any()) else 0.0
    return gap / float(y[finite].abs().max()) if gap and bool(y[finite].any()) else gap
