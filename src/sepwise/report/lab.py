"""What the page of the lab shows: the ledger, each claim with its verdict, figure, table and how to run it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
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
        "claims": [
            claim | {"figures": figures(claim.get("figure")), "tables": tables(claim.get("table") or ())}
            for claim in claims
        ],
        "machine": facts.machine(),
    }


def figures(found: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Each chart of a claim as SVG, with its title."""
    charts = [found] if isinstance(found, Mapping) else found or []
    return [{"svg": chart.svg(each), "title": each.get("title")} for each in charts]


def tables(rows: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Rows under the same names, one after another, are one table.

    >>> [len(table) for table in tables([{"a": 1, "b": 2}, {"a": 3, "b": 4}, {"c": 5}])]
    [2, 1]
    """
    return [list(table) for _, table in groupby(rows, key=tuple)]


def headline(claims: list[dict[str, Any]]) -> str:
    """How many of the claims have been tested.

    >>> headline([{"verdict": "holds"}, {"verdict": None}])
    '1 of 2 claims tested'
    """
    return f"{sum(c['verdict'] is not None for c in claims)} of {len(claims)} claims tested"
