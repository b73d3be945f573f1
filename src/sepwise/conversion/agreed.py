"""How far a converted network agrees with the dense one on pictures, in the number that fits its kind of output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import ModelError, PictureError
from ..measure import Agreement
from ..measure.agreement import kind_of

METRIC = {"maps": "f1", "classes": "top1", "tensors": "correlation"}


@torch.no_grad()
def agreement_on(network: nn.Module, dense: nn.Module, batches: Sequence[Tensor]) -> Agreement:
    """All measures of agreement over the pictures together. Raises ModelError for networks that return no tensor."""
    total: Agreement | None = None
    for x in batches:
        wanted = answer_of(dense(x))
        total = total or Agreement(kind_of(wanted))
        total.update(answer_of(network(x)), wanted)
    assert total is not None
    return total


def measure_of(agreed: Agreement) -> tuple[str, float]:
    """The one number that a budget speaks of: its name and value; NaN where it does not exist."""
    metric = METRIC[agreed.kind or "tensors"]
    return metric, getattr(agreed, metric)


def answer_of(output: Any) -> Tensor:
    """The tensor that agreement is measured on: the output, or the last tensor of several (the fused one)."""
    tensors = [t for t in pytree.tree_leaves(output) if isinstance(t, Tensor)]
    if not tensors:
        raise ModelError("the model returns no tensor; agreement cannot be measured")
    return tensors[-1]


def hold_out(batches: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """(to fit on, to measure on): the last quarter of the pictures, at least one, is kept apart.

    Raises PictureError when there are fewer than two.
    """
    count = sum(len(b) for b in batches)
    if count < 2:
        raise PictureError("an agreement to keep is measured on pictures held out of the fit: give at least two")
    left = count - max(1, count // 4)
    fit: list[Tensor] = []
    held: list[Tensor] = []
    for batch in batches:
        taken = min(left, len(batch))
        left -= taken
        fit += [batch[:taken]] if taken else []
        held += [batch[taken:]] if taken < len(batch) else []
    return fit, held
