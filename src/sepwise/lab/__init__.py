"""Claims about separable convolutions, tested again with seeds and intervals. Knows networks, training and statistics;
knows nothing of commands or pages.
"""

from .judged import Judged, judged
from .ledger import LEDGER, VERDICTS, Claim
from .recipe import SCALES, Finding, Inputs, Recipe, Result, named, names
from .trials import Folder, Trial, trials
from .workers import run

__all__ = [
    "LEDGER",
    "SCALES",
    "VERDICTS",
    "Claim",
    "Finding",
    "Folder",
    "Inputs",
    "Judged",
    "Recipe",
    "Result",
    "Trial",
    "judged",
    "named",
    "names",
    "run",
    "trials",
]
