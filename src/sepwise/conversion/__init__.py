"""Model in, model out: convolutions planned, fitted, replaced and fused. Knows no files of pictures and no pages."""

from .apply import convert, rebuild
from .budget import check_budget, totals_of
from .curve import at_budgets, in_forms
from .export import export, save_program
from .fuse import FusedNetwork, FusionReport, fuse
from .plan import Choice, Plan
from .planner import plan_from
from .planning import plan
from .recovery import recover
from .survey import Survey, survey
from .synthetic import synthetic_batches

__all__ = [
    "Choice",
    "FusedNetwork",
    "FusionReport",
    "Plan",
    "Survey",
    "at_budgets",
    "check_budget",
    "convert",
    "export",
    "fuse",
    "in_forms",
    "plan",
    "plan_from",
    "rebuild",
    "recover",
    "save_program",
    "survey",
    "synthetic_batches",
    "totals_of",
]
