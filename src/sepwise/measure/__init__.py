"""Numbers about a model: cost, separability, agreement, timing. Knows modules; never changes one, reads no file."""

from .agreement import Agreement, agreement
from .cost import Cost, cost
from .timing import Timing, fastest, measure_latency, ratio, stock_forms

__all__ = [
    "Agreement",
    "Cost",
    "Timing",
    "agreement",
    "cost",
    "fastest",
    "measure_latency",
    "ratio",
    "stock_forms",
]
