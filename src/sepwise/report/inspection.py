"""What the page of an inspection shows: totals, one row a convolution, kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import embed, numerals
from .facts import Facts

RANKS = 4  # columns of the table of energy kept
HIDDEN = ("title", "model", "command", "sepwise", "torch", "verdicts", "caveat")  # told elsewhere on the page


def serves(facts: Facts) -> bool:
    return facts.any("inspection.")


def context(facts: Facts, folder: Path) -> dict[str, Any]:
    """The names that inspection.html reads."""
    told = facts.last("inspection.total")
    total = told.value if told and isinstance(told.value, dict) else {}
    rows = [r.value for r in facts.all("inspection.layer", "name")]
    return {
        "title": total.get("title") or total.get("model") or "Inspection",
        "about": total,
        "headline": headline(rows),
        "totals": {_title(key): value for key, value in total.items() if key not in HIDDEN},
        "layers": _layers(rows),
        "ranks": _common_ranks(rows),
        "verdicts": _verdicts(rows),
        "kernels": [
            {"layer": r.value["layer"], "pictures": [("Today", embed.exact(folder, r.value["picture"]))]}
            for r in facts.all("kernels", "layer", "picture")
        ],
        "machine": facts.machine(),
    }


def headline(rows: Sequence[dict[str, Any]]) -> str:
    """How many multiplications, in how many convolutions, and how few of them hold half.

    >>> headline([{"macs": 600}, {"macs": 300}, {"macs": 100}])
    '3 convolutions, 1,000 multiplications, half of them in 1 layer'
    """
    macs = sorted((v for row in rows if numerals.is_number(v := row.get("macs"))), reverse=True)
    if not macs or not sum(macs):
        return f"{len(rows)} convolutions"
    half = next(n for n in range(1, len(macs) + 1) if 2 * sum(macs[:n]) >= sum(macs))
    layers = "1 layer" if half == 1 else f"{half} layers"
    multiplications = numerals.short(sum(macs)) if sum(macs) >= 1e6 else numerals.count(sum(macs))
    return f"{len(rows)} convolutions, {multiplications} multiplications, half of them in {layers}"


def _title(key: str) -> str:
    return numerals.words(key)[:1].upper() + numerals.words(key)[1:]


def _verdicts(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        if row.get("verdict"):
            counts[str(row["verdict"])] = counts.get(str(row["verdict"]), 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _layers(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    total = sum(v for row in rows if numerals.is_number(v := row.get("macs"))) or 1
    shares = [row.get("macs_share", row["macs"] / total if numerals.is_number(row.get("macs")) else 0) for row in rows]
    most = max((s for s in shares if numerals.is_number(s)), default=0) or 1
    return [
        row
        | {
            "share": share,
            "bar": 100 * share / most if numerals.is_number(share) else 0,
            "energies": _energies(row.get("energy")),
        }
        for row, share in zip(rows, shares, strict=True)
    ]


def _common_ranks(rows: Sequence[dict[str, Any]]) -> list[str] | None:
    """The ranks of the columns when every form of every layer has the same ones, or the first few of them."""
    found = [[rank for rank, _ in kept] for row in rows for _, kept in _energies(row.get("energy"))]
    longest = max(found, key=len, default=[])
    return longest if longest and all(ranks == longest[: len(ranks)] for ranks in found) else None


def _energies(energy: Any) -> list[tuple[str, list[tuple[str, float]]]]:
    """For each form its energy kept at the first few ranks: (rank, fraction)."""
    if not isinstance(energy, dict):
        return []
    return [
        (form, [(rank, kept) for rank, kept in by_rank.items() if numerals.is_number(kept)][:RANKS])
        for form, by_rank in energy.items()
        if isinstance(by_rank, dict)
    ]
