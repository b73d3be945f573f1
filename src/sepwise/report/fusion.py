"""What the page of a fused network shows: its speed, its answers to pictures before and after, and what was fused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..records import Record
from . import embed, numerals
from .facts import Facts

KINDS = (  # key of the record, heading, what stands in the second column
    ("fused", "Run as one operation each", "What it computes"),
    ("left", "Left as they are", "Why"),
    ("merged", "Sums of parallel layers, written as one convolution", "Added to it"),
    ("alone", "Other convolutions by the same kernels, which are faster here", "What it computes"),
    ("slower", "Left to PyTorch, which is faster there", "Time of our kernels over PyTorch's"),
)
OPEN = 60  # rows; longer tables are folded up


def serves(facts: Facts) -> bool:
    return facts.any("fusion")


def context(facts: Facts, folder: Path) -> dict[str, Any]:
    """The names that fusion.html reads."""
    told = facts.last("fusion")
    value = told.value if told and isinstance(told.value, dict) else {}
    seen = facts.last("fusion.pictures")
    answers = seen.value if seen and isinstance(seen.value, dict) else {}
    latency = value.get("latency") or {}
    return {
        "title": value.get("model") or "Fused network",
        "about": (told.about if told else {}) | {"weights": value.get("weights"), "size": value.get("size")},
        "headline": headline(latency, answers),
        "latency": latency if numerals.is_number(latency.get("ratio")) else None,
        "answers": answers,
        "agreement": _agreement(answers),
        "preparation": _preparation(answers.get("preparation") or {}),
        "value": value,
        "pictures": [_picture(r, folder) for r in facts.all("fusion.picture", "name", "picture")],
        "tables": [_table(*kind, value[kind[0]]) for kind in KINDS if value.get(kind[0])],
        "machine": facts.machine(),
    }


def headline(latency: Mapping[str, Any], answers: Mapping[str, Any]) -> str:
    """One sentence of measured facts: speed, gained or lost, and what the answers have in common.

    >>> headline({"ratio": 1.94}, {"same": 500, "count": 500})
    '1.9× faster, the same first answer on 500 of 500 pictures'
    """
    parts = []
    ratio = latency.get("ratio")
    if numerals.is_number(ratio) and ratio > 0:
        parts.append(numerals.compared(ratio, "faster", "slower"))
    if numerals.is_number(answers.get("same")):
        same, count = (numerals.count(answers[key]) for key in ("same", "count"))
        parts.append(f"the same first answer on {same} of {count} pictures")
    elif numerals.is_number(answers.get("relative")):
        parts.append(f"outputs differ by {numerals.degree(answers['relative'])} of the largest")
    return ", ".join(parts) or "A network and its fused twin"


def _agreement(answers: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of the table: what, the number, a word on it."""
    rows = []
    count = answers.get("count")
    if numerals.is_number(answers.get("same")):
        shares = numerals.percent(answers["same"] / count) if count else numerals.NONE
        rows.append(("Same first answer", f"{numerals.count(answers['same'])} of {numerals.count(count)}", shares))
    if numerals.is_number(answers.get("relative")):
        rows.append(("Relative difference", numerals.degree(answers["relative"]), "of the largest output of a picture"))
    if numerals.is_number(answers.get("largest")):
        rows.append(("Largest difference", numerals.degree(answers["largest"]), "of one output, in its own unit"))
    if numerals.is_number(answers.get("right_before")) and answers.get("labelled"):
        for key, name in (("right_before", "Right first answer before"), ("right_after", "Right first answer after")):
            right, labelled = answers[key], answers["labelled"]
            rows.append((name, numerals.percent(right / labelled), f"{right} of {labelled} pictures with labels"))
    return rows


def _preparation(told: Mapping[str, Any]) -> str:
    """How pictures were prepared, in words."""
    if not {"size", "resized", "interpolation", "mean", "std", "by"} <= set(told):
        return ""
    mean, std = (", ".join(f"{v:.4g}" for v in told[key]) for key in ("mean", "std"))
    middle = numerals.size(told["size"])
    cut = "" if told["resized"] == told["size"] else f", the middle {middle} cut out"
    return (
        f"resized to cover {numerals.size(told['resized'])} ({told['interpolation']}){cut}; mean {mean}, "
        f"deviation {std}; as {told['by']} says"
    )


def _picture(record: Record, folder: Path) -> dict[str, Any]:
    value = record.value
    tops = [(name, value.get(key) or []) for name, key in (("Before", "before"), ("After", "after"))]
    same = all(top for _, top in tops) and tops[0][1][0][0] == tops[1][1][0][0]
    return {
        **{key: value.get(key) for key in ("name", "label", "relative", "before_ms", "after_ms")},
        "image": embed.photograph(folder, value["picture"]),
        "tops": [(name, top) for name, top in tops if top],
        "same": same,
    }


def _table(key: str, title: str, column: str, found: Mapping[str, Any]) -> dict[str, Any]:
    rows = [(name, _cell(key, what)) for name, what in found.items()]
    return {
        "key": key,
        "title": title,
        "column": column,
        "rows": rows,
        "open": key in ("fused", "left") and len(rows) <= OPEN,
    }


def _cell(key: str, what: Any) -> str:
    if key == "slower":
        return numerals.times(what)
    if key == "merged":
        return numerals.plain(what or "what it reads")
    return numerals.plain(what)
