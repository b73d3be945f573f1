"""What the page of the lab shows: the ledger, each claim with its verdict, figure, table and how to run it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import chart
from .facts import Facts


def serves(facts: Facts) -> bool:
    return facts.any("lab.claim")


def context(facts: Facts, folder: Path) -> dict[str, Any]:
    """The names that lab.html reads."""
    told = facts.last("lab.report")
    about = told.value if told else {}
    claims = [r.value for r in facts.all("lab.claim", "id", "says", "verdict", "recipe", "measured")]
    counts = {v: sum(c["verdict"] == v for c in claims) for v in dict.fromkeys(c["verdict"] for c in claims)}
    return {
        "title": "Claims about separable convolutions",
        "about": about,
        "headline": headline(claims),
        "counts": {verdict or "not run": count for verdict, count in counts.items()},
        "claims": [claim | {"svg": chart.svg(claim["figure"]) if claim.get("figure") else None} for claim in claims],
        "machine": facts.machine(),
    }


def headline(claims: list[dict[str, Any]]) -> str:
    """How many of the claims have been tested.

    >>> headline([{"verdict": "holds"}, {"verdict": None}])
    '1 of 2 claims tested'
    """
    return f"{sum(c['verdict'] is not None for c in claims)} of {len(claims)} claims tested"
