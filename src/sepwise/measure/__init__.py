"""Numbers about a model: cost, separability, agreement, timing. Knows modules; never changes one, reads no file."""

from .agreement import Agreement, agreement
from .correlation import Correlation, correlations
from .cost import Cost, cost
from .diagram import Diagram, diagram
from .explain import explain, explain_matrix
from .inspection import Inspection, inspect
from .separability import (
    cross_kernel,
    energy_curve,
    intra_kernel,
    rank_one_loss,
    rank_one_share,
    separate_matrix,
    spatial_rank,
)
from .timing import Timing, fastest, measure_latency, ratio, stock_forms

__all__ = [
    "Agreement",
    "Correlation",
    "Cost",
    "Diagram",
    "Inspection",
    "Timing",
    "agreement",
    "correlations",
    "cost",
    "cross_kernel",
    "diagram",
    "energy_curve",
    "explain",
    "explain_matrix",
    "fastest",
    "inspect",
    "intra_kernel",
    "measure_latency",
    "rank_one_loss",
    "rank_one_share",
    "ratio",
    "separate_matrix",
    "spatial_rank",
    "stock_forms",
]
