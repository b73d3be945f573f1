"""Model in, model out: dense convolutions planned, fitted and replaced. Knows no files of pictures and no pages."""

from .apply import convert, rebuild
from .plan import Choice, Plan
from .planner import check_budget, plan_from
from .planning import plan
from .survey import Survey, survey

__all__ = ["Choice", "Plan", "Survey", "check_budget", "convert", "plan", "plan_from", "rebuild", "survey"]
