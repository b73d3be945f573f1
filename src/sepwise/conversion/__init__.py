"""Model in, model out: dense convolutions planned, fitted and replaced. Knows no files of pictures and no pages."""

from .apply import convert, rebuild
from .curve import at_budgets
from .export import export, save_program
from .plan import Choice, Plan
from .planner import check_budget, plan_from
from .planning import plan, totals_of
from .survey import Survey, survey

__all__ = [
    "Choice",
    "Plan",
    "Survey",
    "at_budgets",
    "check_budget",
    "convert",
    "export",
    "plan",
    "plan_from",
    "rebuild",
    "save_program",
    "survey",
    "totals_of",
]
