"""Claim U3 judged: does the correlation of what a layer reads tell how much is lost when it is made separable?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .layers import Row
from .ledger import FAILS, HOLDS, NOT_SHOWN
from .predictors import BEST, Predicted, at_share, predicted, ranking
from .recipe import Finding

SHARE = 0.28  # of a layer's multiplications: the loss that is judged
OTHERS = ((BEST, 0.12), ("depthwise", SHARE), ("spatial", SHARE), ("cp", SHARE))  # shown beside it
USEFUL, LEVEL, NETWORKS = 0.5, 0.05, 2
STRONG = 0.7  # a rank correlation that could stand for measuring: the end of its interval that is nearer to 0


def finding(networks: Mapping[str, Sequence[Row]]) -> Finding:
    layers = {name: [row for row in rows if "candidates" in row] for name, rows in networks.items()}
    found = predicted(layers, BEST, SHARE)
    others = {f"{form}, {100 * share:.0f} %": predicted(layers, form, share) for form, share in OTHERS}
    table = [_row(p, layers, {title: each[at] for title, each in others.items()}) for at, p in enumerate(found)]
    known = [p for p in found if p.pooled]
    charts = [_intervals(known), _best(known, layers)] if known else None
    return Finding("U3", _verdict(found), _says(found, layers), table, charts)


def _verdict(found: Sequence[Predicted]) -> str:
    claimed = [p for p in found if p.predictor.kind == "inputs"]
    if any(_tells(p) for p in claimed):
        return HOLDS
    return FAILS if all(_cannot(p) for p in claimed) else NOT_SHOWN


def _tells(p: Predicted) -> bool:
    one_sign = len({value > 0 for value in p.networks.values()}) == 1
    return p.claimed >= USEFUL and p.p is not None and p.p < LEVEL and one_sign and len(p.networks) >= NETWORKS


def _cannot(p: Predicted) -> bool:
    """The whole interval lies below what would be of use in the claim's direction."""
    if p.pooled is None or len(p.networks) < NETWORKS:
        return False
    return max(p.predictor.expects * end for end in (p.pooled.low, p.pooled.high)) < USEFUL


def _says(found: Sequence[Predicted], layers: Mapping[str, Sequence[Row]]) -> str:
    known = [p for p in found if p.pooled]
    if not known:
        return "Too few layers were converted to say anything."
    claimed = ", ".join(f"{p.predictor.name} {p.pooled}" for p in known if p.predictor.kind == "inputs")
    parts = [f"Rank correlation with the measured loss, {len(found)} predictors tried: {claimed}."]
    before = [p for p in known if p.predictor.kind != "fit"]
    for title, group in (("without converting anything", before), ("of all", known)):
        best = max(group, key=_strength, default=None)
        if best and best.pooled:
            parts.append(f"The best {title}: {best.predictor.name}, {best.pooled}.")
    return " ".join([*parts, *_advice(known, layers)])


def _advice(known: Sequence[Predicted], layers: Mapping[str, Sequence[Row]]) -> list[str]:
    """What a planner can do with it."""
    strong = [p.predictor.name for p in known if p.pooled and min(abs(p.pooled.low), abs(p.pooled.high)) >= STRONG]
    if strong:
        parts = [f"Strong enough to rank layers without running the network for each: {', '.join(strong)}."]
    else:
        parts = [f"None is strong enough ({STRONG:g}) to rank layers without measuring."]
    inside = ranking(layers, SHARE)
    if inside:
        use = (
            "a planner may fit all and run the network for few" if inside.within >= STRONG else "not enough to skip any"
        )
        parts.append(
            f"Inside a layer the fit's own error ranks candidates: rank correlation {inside.within:.2f} (median of "
            f"{inside.layers} layers), {use}. The form with the smallest error is the one with the smallest loss in "
            f"{inside.right} of them; in the others its loss is {inside.regret:.2f} times the smallest (median). "
            f"The loss is {inside.sizes[0]:.1f} times error × noise felt (median; {inside.sizes[1]:.1f} to "
            f"{inside.sizes[2]:.1f} for nine candidates of ten): it ranks them, and does not stand for their loss."
        )
    return parts


def _intervals(known: Sequence[Predicted]) -> dict[str, Any]:
    return {
        "kind": "intervals",
        "title": f"What goes with the loss at {100 * SHARE:.0f} % of a layer's multiplications",
        "rows": [{"name": p.predictor.name, **p.pooled.shown()} for p in known if p.pooled],
        "lines": [{"name": "no relation", "at": 0.0}],
        "x": "rank correlation, over layers ranked inside their network",
    }


def _best(known: Sequence[Predicted], layers: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """The loss against the best predictor, a point for each layer."""
    predictor = max(known, key=_strength).predictor
    series = []
    for name, rows in layers.items():
        pairs = [(predictor.of(row, BEST, SHARE), at_share(row, BEST, SHARE, "effect")) for row in rows]
        series.append({"name": name, "points": [[x, y] for x, y in pairs if x is not None and y is not None]})
    series = [each for each in series if each["points"]]
    return {
        "kind": "scatter",
        "title": "The best predictor: each point is a layer",
        "series": series,
        "x": predictor.name,
        "y": f"measured loss at {100 * SHARE:.0f} %",
        "log_x": all(x > 0 for each in series for x, _ in each["points"]),
        "log_y": True,
    }


def _strength(p: Predicted) -> float:
    return abs(p.pooled.mean) if p.pooled else 0.0


def _row(p: Predicted, layers: Mapping[str, Sequence[Row]], others: Mapping[str, Predicted]) -> dict[str, Any]:
    claims = {1: "more loss", -1: "less loss", 0: ""}[p.predictor.expects]
    return {
        "predictor": p.predictor.name,
        "claimed": claims,
        "layers": p.pooled.n if p.pooled else 0,
        "rank correlation": str(p.pooled or ""),
        "p (Holm)": "" if p.p is None else f"{p.p:.2g}",
        **{name: _signed(p.networks.get(name)) for name in layers},
        **{title: _signed(other.pooled and other.pooled.mean) for title, other in others.items()},
    }


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
