"""`sepwise.plan`: a survey of the network, then the best plan under a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ..factor import FORMS
from .budget import check_budget, totals_of
from .plan import BatchNorm, Plan
from .planner import plan_from
from .survey import Progress, survey


def plan(
    model: nn.Module,
    example: Tensor,
    *,
    budget: Mapping[str, float],
    batches: Sequence[Tensor] | None = None,
    forms: Sequence[str] = tuple(FORMS),
    batch_norm: BatchNorm = "fold",
    progress: Progress | None = None,
) -> Plan:
    """Choose a form and a rank for each layer, so that the network's output changes least under a budget.

    model       left unchanged
    example     an input (N, C, *size); stands in for `batches` when there are none
    budget      {"macs": 0.25} and/or {"parameters": 0.3}: fractions of the whole dense network
    batches     calibration pictures, unlabelled; each candidate is fitted to them and its effect on the network's
                output measured on the first few
    forms       forms to choose from; leaving a layer dense is always a candidate
    batch_norm  "fold" into the convolution before the fit, or "keep"
    Raises BudgetError when the budget cannot be met (naming the best that can), ModelError for a model that cannot be
    followed, MissingExtraError without SciPy.

    >>> import torch, sepwise
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3))
    >>> pictures = torch.randn(8, 8, 12, 12)
    >>> chosen = sepwise.plan(model, pictures, budget={"macs": 0.5})
    >>> chosen.macs[1] <= 0.5 * chosen.macs[0]
    True
    >>> smaller = sepwise.convert(model, chosen, [pictures])
    >>> smaller(pictures).shape
    torch.Size([8, 8, 8, 8])
    """
    wanted = check_budget(budget)
    found = survey(model, batches or [example], forms=forms, batch_norm=batch_norm, progress=progress)
    return plan_from(found, wanted, totals_of(found, example))
