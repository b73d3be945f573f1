"""Claim G8 judged: is a separable convolution faster in most shapes, and what part of the saving becomes time?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log
from typing import Any

from .recipe import Finding, Result
from .verdict import Interval, bootstrap_of, in_most, ratio_of

WAYS = ("two convolutions in PyTorch", "sepwise.separable_conv2d")
BEST = "the faster of both"
LEAD = (1, "float32")  # threads and dtype of the records that the sentence and the chart show
Row = Mapping[str, Any]


def finding(measured: Sequence[Result], pairs: Sequence[Row], networks: Sequence[Row]) -> Finding:
    """pairs, networks    rows of `benchmarks`"""
    shapes: dict[str, list[Mapping[str, Any]]] = {}
    for result in measured:
        shapes.setdefault(result.arm, []).append(result.numbers)
    found = {name: _ratios(trials) for name, trials in shapes.items() if len(trials) > 1}
    saved = {name: shapes[name][0]["multiplications"] for name in found}
    verdict, _ = in_most([ratios[BEST].high < 1 for ratios in found.values()])
    parts = [_against_dense(found, saved)] if len(found) > 1 else []
    table = [
        *(_shape_row(name, saved[name], ratios) for name, ratios in found.items()),
        *_runtime_rows(pairs),
        *(_network_row(row) for row in networks),
    ]
    says = " ".join([*parts, *_recorded(pairs)]) or "No shape was measured twice."
    return Finding("G8", verdict, says, table, _charts(found, saved, pairs))


def _ratios(trials: Sequence[Mapping[str, Any]]) -> dict[str, Interval]:
    """Way -> time of the separable convolution over that of the dense one, repetition by repetition."""
    each = {way: [t["ratios"][way] for t in trials] for way in WAYS}
    each[BEST] = [min(both) for both in zip(*each.values(), strict=True)]
    return {way: ratio_of(values) for way, values in each.items()}


def _against_dense(found: Mapping[str, Mapping[str, Interval]], saved: Mapping[str, float]) -> str:
    each = "; ".join(_sentence(way, found, saved) for way in (*WAYS, BEST))
    return (
        f"Against the best dense convolution of stock PyTorch, at {_geometric(list(saved.values())):.2f} of its "
        f"multiplications (geometric means): {each}."
    )


def _sentence(way: str, found: Mapping[str, Mapping[str, Interval]], saved: Mapping[str, float]) -> str:
    ratios = [each[way] for each in found.values()]
    quicker, slower = (sum(so) for so in ([r.high < 1 for r in ratios], [r.low > 1 for r in ratios]))
    kept = bootstrap_of([(1 - found[name][way].mean) / (1 - saved[name]) for name in found])
    return (
        f"{way}: faster in {quicker} of {len(ratios)} shapes, slower in {slower}; "
        f"{_geometric([r.mean for r in ratios]):.2f} of the time, {100 * kept.mean:.0f} % of the saving kept "
        f"({100 * kept.low:.0f} to {100 * kept.high:.0f} %)"
    )


def _shape_row(name: str, multiplications: float, ratios: Mapping[str, Interval]) -> dict[str, Any]:
    return {
        "shape": name,
        "multiplications": multiplications,
        **{f"time, {way}": str(ratios[way]) for way in WAYS},
        **{f"saving kept, {way}": f"{100 * (1 - ratios[way].mean) / (1 - multiplications):.0f} %" for way in WAYS},
    }


def _runtimes(pairs: Sequence[Row]) -> dict[tuple[str, int, str], list[tuple[float, float]]]:
    """(runtime, threads, dtype) -> multiplications and time of each pair, over those of the ideal dense convolution."""
    found: dict[tuple[str, int, str], list[tuple[float, float]]] = {}
    for row in pairs:
        for runtime, time in row["times"].items():
            found.setdefault((runtime, row["threads"], row["dtype"]), []).append((row["multiplications"], time))
    return dict(sorted(found.items(), key=lambda item: (item[0][2] != "float32", item[0][1], item[0][0])))


def _runtime_rows(pairs: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {
            "runtime": runtime.replace("_", " "),
            "dtype": dtype,
            "threads": threads,
            "pairs": len(points),
            "multiplications, geometric mean": _geometric([m for m, _ in points]),
            "time over a dense convolution at full rate": _geometric([t for _, t in points]),
            "faster than that": sum(t < 1 for _, t in points),
        }
        for (runtime, threads, dtype), points in _runtimes(pairs).items()
    ]


def _network_row(row: Row) -> dict[str, Any]:
    return {
        "network, converted": row["network"],
        "threads": row["threads"],
        "multiplications": row["multiplications"],
        **{f"time over the dense network in {name}": time for name, time in row["times"].items()},
        "agreement, F1": row["agreement"],
    }


def _recorded(pairs: Sequence[Row]) -> list[str]:
    alone = {
        runtime: points for (runtime, threads, dtype), points in _runtimes(pairs).items() if (threads, dtype) == LEAD
    }
    if not alone:
        return []
    each = "; ".join(
        f"{runtime.replace('_', ' ')} {sum(t < 1 for _, t in points)} of {len(points)}"
        for runtime, points in alone.items()
    )
    return [
        f"Faster even than a dense convolution at the machine's full rate, in the records of the benchmarks: {each}."
    ]


def _charts(
    found: Mapping[str, Mapping[str, Interval]], saved: Mapping[str, float], pairs: Sequence[Row]
) -> list[dict[str, Any]]:
    here = {way: [(saved[name], found[name][way].mean) for name in found] for way in WAYS}
    recorded = {
        r.replace("_", " "): p for (r, threads, dtype), p in _runtimes(pairs).items() if (threads, dtype) == LEAD
    }
    titles = {
        "over the best dense convolution of stock PyTorch, measured here": here,
        "over a dense convolution at the machine's full rate, records of the benchmarks": recorded,
    }
    return [_chart(title, series) for title, series in titles.items() if any(series.values())]


def _chart(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Any]:
    ends = [f([m for points in series.values() for m, _ in points]) for f in (min, max)]
    return {
        "kind": "curves",
        "title": f"Time and multiplications {title}",
        "series": [
            *({"name": n, "points": [[m, t, t, t] for m, t in p], "only": "dots"} for n, p in series.items() if p),
            {"name": "as the multiplications", "points": [[m, m, m, m] for m in ends], "only": "line"},
        ],
        "lines": [{"name": "no time saved", "at": 1.0}],
        "x": "multiplications over those of the dense convolution",
        "y": "time over its time",
        "log_x": True,
        "log_y": True,
    }


def _geometric(values: Sequence[float]) -> float:
    return exp(sum(map(log, values)) / len(values))
