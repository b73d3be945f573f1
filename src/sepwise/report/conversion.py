"""What the page of a conversion shows, section by section. A section without records is None or empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..records import Record
from . import embed, numerals
from .curve import FEWER, THIS, Point, chart
from .facts import Facts
from .pictures import DIFFERENCE_SCALE

MARKS = ("conversion", "network.", "agreement.", "alone", "layer", "curve", "front", "picture", "kernels")
COSTS = (
    ("network.parameters", "Parameters", "", "fewer", "more"),
    ("network.macs", "Multiplications (MACs)", "", "fewer", "more"),
    ("network.weight_bytes", "Size of the weights", "B", "smaller", "larger"),
)
METRICS = {  # name: (as a row, in the headline, what the dense network has with itself)
    "f1": ("F1 of the maps, cut at 0.5", "edges agree at F1 {}", "1"),
    "top1": ("Same first answer", "same answer on {} of the pictures", "100 %"),
    "correlation": ("Correlation", "outputs correlate at {}", "1"),
    "mean_absolute_difference": ("Mean absolute difference", "outputs differ by {} on average", "0"),
    "relative_error": ("Relative error", "outputs at a relative error of {}", "0"),
    "psnr_db": ("PSNR, dB", "outputs agree at {} dB", "∞"),
    "kl_nats": ("Kullback–Leibler divergence, nats", "answers {} nats apart", "0"),
}
LAYER = ("in_channels", "out_channels", "macs_before", "macs_after", "parameters_before", "parameters_after")
GAINS = {"parameters": "fewer parameters", "weight_bytes": "smaller weights", "latency": "faster, as predicted,"}
HARM = (
    "What the planner reckoned with: the summed change of the output when each layer is converted alone, at its least "
    "for each cost. Agreement stands in the table where it was measured."
)
DRAWINGS = ((640, 340), (380, 320))  # pixels of a chart on a wide and on a narrow screen


@dataclass(frozen=True)
class Cost:
    """One row of the table dense against separable."""

    what: str
    name: str
    detail: str
    dense: Any
    separable: Any
    unit: str
    gain: str
    loss: str

    @property
    def factor(self) -> float | None:
        both = numerals.is_number(self.dense) and numerals.is_number(self.separable)
        return self.dense / self.separable if both and self.dense and self.separable else None


@dataclass(frozen=True)
class Agreement:
    """One measure of agreement between the outputs of the two networks."""

    metric: str
    value: Any
    count: Any
    unit: str

    @property
    def title(self) -> str:
        return METRICS[self.metric][0] if self.metric in METRICS else numerals.words(self.metric).capitalize()

    @property
    def text(self) -> str:
        text = numerals.percent(self.value) if self.metric.startswith("top") else numerals.degree(self.value)
        return f"{text} {self.unit}".strip()

    @property
    def perfect(self) -> str:
        return METRICS[self.metric][2] if self.metric in METRICS else numerals.NONE


def serves(facts: Facts) -> bool:
    """True when there is something of a conversion, and no inspection without one, among the records."""
    return "conversion" in facts.by_what or (facts.any(*MARKS) and not facts.any("inspection."))


def context(facts: Facts, folder: Path) -> dict[str, Any]:
    """The names that conversion.html reads."""
    told = facts.last("conversion")
    about = told.value if told and isinstance(told.value, dict) else {}
    costs = _costs(facts)
    agreements = [
        Agreement(r.what.partition(".")[2], r.value, r.about.get("count"), r.unit)
        for r in facts.under("agreement")
        if numerals.is_number(r.value)
    ]
    latency, fused = (_positive(facts.last(f"network.{which}latency_ratio")) for which in ("", "fused_"))
    return {
        "title": about.get("title") or about.get("model") or "Conversion",
        "about": about | {"budget": _budget(about.get("budget"))},
        "headline": headline(costs, latency, agreements),
        "costs": costs,
        "latency": latency,
        "latencies": [
            ("Latency", latency and latency.about.get("separable_form"), latency),
            ("Latency, fused", fused and _fused(fused), fused),
        ],
        "agreements": agreements,
        "recovery": _recovery(facts),
        "compared": _ways(facts.all("compare", "method")),
        "alone": _alone(facts.all("alone", "form"), agreements, latency, fused),
        "shown_on": _shown_on(facts),
        "pictures": [_picture(r, folder) for r in facts.all("picture", "name")],
        "difference_scale": DIFFERENCE_SCALE,
        "charts": [
            *_charts(facts.all("curve", "macs_fraction", "agreement")),
            *_fronts(facts.all("front", "cost", "harm", "unit")),
        ],
        "layers": _layers(facts.all("layer", "name", "form")),
        "kernels": [_kernels(r, folder) for r in facts.all("kernels", "layer", "before", "after")],
        "machine": facts.machine(),
    }


def _recovery(facts: Facts) -> dict[str, Any] | None:
    """What training won: the measure before and after, and how long it took."""
    told = facts.last("recovery")
    if not told or not isinstance(told.value, dict) or not {"metric", "before", "after", "length"} <= set(told.value):
        return None
    won = told.value
    rows = [Agreement(won["metric"], won[when], None, "") for when in ("before", "after")]
    if not all(numerals.is_number(row.value) for row in rows):
        return None
    return {"title": rows[0].title, "before": rows[0].text, "after": rows[1].text, "length": won["length"]}


def _ways(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The ways to be so cheap, one row each: cost and agreement, or why there is none."""
    rows = []
    for value in (r.value for r in records):
        row = {"method": value["method"], "why": value.get("why")}
        if all(numerals.is_number(value.get(key)) for key in ("macs_fraction", "parameters_fraction", "agreement")):
            measured = Agreement(str(value.get("metric")), value["agreement"], None, "")
            row |= {"title": measured.title, "agreement": measured.text}
            row |= {key: numerals.times(1 / value[f"{key}_fraction"]) for key in ("macs", "parameters")}
        elif not row["why"]:
            row["why"] = "undefined"
        rows.append(row)
    return rows


def headline(costs: Sequence[Cost], latency: Record | None, agreements: Sequence[Agreement]) -> str:
    """One sentence of measured facts: multiplications, time, agreement; gains and losses alike."""
    parts = []
    factors = {cost.what: cost.factor for cost in costs if cost.factor}
    for what, noun in (("network.macs", "multiplications"), ("network.parameters", "parameters")):
        if what in factors:
            parts.append(numerals.compared(factors[what], "fewer " + noun, "more " + noun))
            break
    if latency:
        parts.append(numerals.compared(latency.value, "faster", "slower"))
    measured = {a.metric: a for a in agreements}
    for metric in METRICS:
        if metric in measured:
            parts.append(METRICS[metric][1].format(measured[metric].text))
            break
    return ", ".join(parts) or "A dense network and its separable twin"


def _alone(
    records: Sequence[Record], agreements: Sequence[Agreement], latency: Record | None, fused: Record | None
) -> dict[str, Any] | None:
    """This conversion beside others of the same budget, each of one form: agreement, and speed in both ways."""
    rows = [r.value for r in records if "why" not in r.value]
    if not rows:
        return None
    metric = rows[0].get("metric")
    mine = next((a.value for a in agreements if a.metric == metric), None)
    first = {"form": None, "metric": metric, "agreement": mine, "latency_ratio": latency and latency.value}
    rows = [first | {"fused_latency_ratio": fused and fused.value}, *rows]
    return {
        "metric": METRICS[metric][0] if metric in METRICS else numerals.words(metric),
        "rows": [
            {
                "name": "This conversion" if row["form"] is None else f"{row['form']} layers alone".capitalize(),
                "agreement": Agreement(row.get("metric", ""), row.get("agreement"), None, "").text,
                "speeds": [_speed(row.get(key)) for key in ("latency_ratio", "fused_latency_ratio")],
            }
            for row in rows
        ],
    }


def _speed(ratio: Any) -> str:
    good = numerals.is_number(ratio) and ratio > 0
    return numerals.compared(ratio, "faster", "slower") if good else numerals.NONE


def _positive(record: Record | None) -> Record | None:
    return record if record and numerals.is_number(record.value) and record.value > 0 else None


def _fused(record: Record) -> str:
    """How much of the network is fused: "13 of 17 layers as one operation each"."""
    pairs, left = (record.about.get(key) for key in ("pairs", "left"))
    if not numerals.is_number(pairs) or not numerals.is_number(left):
        return numerals.NONE
    return f"{numerals.count(pairs)} of {numerals.count(pairs + left)} layers as one operation each"


def _budget(budget: Any) -> str:
    """A budget in words: {"macs": 0.25} is "25.0 % of the MACs"; none is ""."""
    if isinstance(budget, dict):
        return ", ".join(f"{numerals.percent(share)} of the {numerals.words(what)}" for what, share in budget.items())
    return numerals.plain(budget) if budget else ""


def _costs(facts: Facts) -> list[Cost]:
    rows = []
    for what, name, unit, gain, loss in COSTS:
        dense, separable = (facts.last(what, network=which) for which in ("dense", "separable"))
        if dense or separable:
            size = next((r.about["size"] for r in (dense, separable) if r and r.about.get("size")), None)
            detail = f"for one input of {numerals.size(size)} pixels" if size else ""
            values = (dense and dense.value, separable and separable.value)
            rows.append(Cost(what, name, detail, *values, unit, gain, loss))
    return rows


def _shown_on(facts: Facts) -> str:
    """The pictures behind the agreement, as words: "20 held-out pictures"."""
    told = [r.about for r in facts.under("agreement") if r.about.get("count")]
    if not told:
        return ""
    return f"{numerals.count(told[0]['count'])} {told[0].get('pictures') or ''} pictures".replace("  ", " ")


def _picture(record: Record, folder: Path) -> dict[str, Any]:
    value = record.value
    maps = [
        (name, key, embed.photograph(folder, value[key]) if key == "input" else embed.exact(folder, value[key]))
        for key, name in (
            ("input", "Input"),
            ("dense", "Dense"),
            ("separable", "Separable"),
            ("difference", "Difference"),
        )
        if value.get(key)
    ]
    answers = [
        (name, [(label, share if numerals.is_number(share) else None) for label, share in value[key]])
        for key, name in (("dense_top", "Dense"), ("separable_top", "Separable"))
        if value.get(key)
    ]
    measures = [
        Agreement(metric, value[metric], None, "")
        for metric in METRICS
        if metric in value and numerals.is_number(value[metric])
    ]
    same = len(answers) == 2 and answers[0][1][0][0] == answers[1][1][0][0]
    return {"name": value["name"], "maps": maps, "answers": answers, "measures": measures, "same_answer": same}


def _charts(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One chart for each metric, each drawn for a wide and for a narrow screen."""
    by_metric: dict[str, list[Point]] = {}
    for record in records:
        value = record.value
        if all(numerals.is_number(value[key]) for key in ("macs_fraction", "agreement")) and value["macs_fraction"] > 0:
            kind = str(record.about.get("kind") or THIS)
            point = Point(value["macs_fraction"], value["agreement"], kind, str(value.get("label") or ""))
            by_metric.setdefault(str(value.get("metric") or "agreement"), []).append(point)
    return [
        {
            "metric": METRICS[metric][0] if metric in METRICS else metric,
            "points": points,
            "gain": FEWER,
            "drawings": [chart(points, *size) for size in DRAWINGS],
        }
        for metric, points in by_metric.items()
    ]


def _fronts(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The least predicted harm at each cost, which the plan was chosen from; the dense network has none to draw."""
    points, gain = [], FEWER
    for record in records:
        value = record.value
        if all(numerals.is_number(value[key]) and value[key] > 0 for key in ("cost", "harm")):
            metric, known = str(value.get("metric") or "agreement"), value.get("agreement")
            name = METRICS[metric][0] if metric in METRICS else metric
            label = f"{name} {numerals.degree(known)}" if numerals.is_number(known) else ""
            points.append(Point(value["cost"], value["harm"], str(record.about.get("kind") or THIS), label))
            gain = GAINS.get(str(value["unit"]), FEWER)
    if len(points) < 2:
        return []
    told = {"what": "predicted harm", "gain": gain, "harm": True}
    drawings = [chart(points, *size, **told) for size in DRAWINGS]
    return [{"metric": "Predicted harm", "points": points, "gain": gain, "drawings": drawings, "note": HARM}]


def _layers(records: Sequence[Record]) -> dict[str, Any] | None:
    """The rows, their sums, and the largest number of multiplications, which a full bar stands for."""
    if not records:
        return None
    rows = [r.value for r in records]
    keys = ("macs_before", "macs_after", "parameters_before", "parameters_after")
    sums = {key: sum(v for row in rows if numerals.is_number(v := row.get(key))) for key in keys}
    most = max(v for row in rows for key in keys[:2] if numerals.is_number(v := row.get(key, 0))) or 1
    return {
        "rows": [_layer(row, most) for row in rows],
        "sums": sums,
        "factor": sums["macs_before"] / sums["macs_after"] if sums["macs_after"] else None,
        "converted": sum(row["form"] != "dense" for row in rows),
        "size": records[0].about.get("size"),
        "has_effect": any(row.get("effect") is not None for row in rows),
        "has_energy": any(row.get("energy_kept") is not None for row in rows),
    }


def _layer(row: dict[str, Any], most: float) -> dict[str, Any]:
    row = dict.fromkeys((*LAYER, "energy_kept", "effect")) | row
    before, after = row["macs_before"], row["macs_after"]
    both = numerals.is_number(before) and numerals.is_number(after)
    return row | {
        "is_dense": row["form"] == "dense",
        "factor": before / after if both and before and after else None,
        "bars": [
            (style, 100 * macs / most, macs)
            for style, macs in (("before", before), ("after", after))
            if numerals.is_number(macs)
        ],
    }


def _kernels(record: Record, folder: Path) -> dict[str, Any]:
    value = record.value
    pictures = [(name, embed.exact(folder, value[key])) for key, name in (("before", "Dense"), ("after", "Separable"))]
    return {"layer": value["layer"], "pictures": pictures}
