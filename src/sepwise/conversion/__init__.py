"""Model in, model out: convolutions planned, fitted and replaced. Knows no files of pictures and no pages."""

from .apply import convert, rebuild
from .budget import check_budget, totals_of
from .curve import at_budgets, in_forms
from .plan import Choice, Plan
from .planner import plan_from
from .planning import plan
from .recovery import recover
from .survey import Survey, survey
from .synthetic import synthetic_batches

__all__ = [
    "Choice",
    "Plan",
    "Survey",
    "at_budgets",
    "check_budget",
    "convert",
    "in_forms",
    "plan",
    "plan_from",
    "rebuild",
    "recover",
    "survey",
    "synthetic_batches",
    "totals_of",
]
