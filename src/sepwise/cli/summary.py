"""What a finished conversion says: its facts as data for programs and as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..conversion import Plan
from ..records import Record
from .outcome import Outcome


def outcome(name: str, shown_on: str, out: Path, files: Sequence[str], plan: Plan, facts: Sequence[Record]) -> Outcome:
    """The outcome of converting the model `name` by `plan`, measured on the pictures `shown_on`, written to `out`."""
    networks: dict[str, dict[str, Any]] = {"dense": {}, "separable": {}}
    for r in facts:
        if r.about.get("network") in networks:
            networks[r.about["network"]][r.what.partition(".")[2]] = r.value
    stock, fused = (next(r for r in facts if r.what == f"network.{w}latency_ratio") for w in ("", "fused_"))
    data = {
        "model": name,
        "out": str(out),
        "networks": networks,
        "latency_ratio": stock.value,
        "latency": {"rounds": stock.n, "spread": stock.spread, **stock.about},
        "fused_latency_ratio": fused.value,
        "fused_latency": {"rounds": fused.n, "spread": fused.spread, **fused.about},
        "agreement": {r.what.partition(".")[2]: r.value for r in facts if r.what.startswith("agreement.")},
        "recovery": next((r.value for r in facts if r.what == "recovery"), None),
        "compare": [r.value for r in facts if r.what == "compare"],
        "alone": [r.value for r in facts if r.what == "alone"],
        "plan": {name: vars(choice) for name, choice in plan.layers.items()},
        "curve": [{**r.value, **r.about} for r in facts if r.what == "curve"],
        "front": [{**r.value, **r.about} for r in facts if r.what == "front"],
        "planned_latency": plan.latency and vars(plan.latency) | {"predicted": plan.latency.predicted},
        "planned_agreement": plan.agreement and vars(plan.agreement),
        "files": list(files),
    }
    lines = [str(plan), "", *_costs(data), *_latencies(stock, fused), ""]
    lines.append(f"agreement with the dense network on {shown_on}, not used for fitting:")
    lines += [_measure(metric, value) for metric, value in data["agreement"].items()]
    if data["recovery"]:
        won = data["recovery"]
        lines.append(
            f"training without labels, {won['length']}: {won['metric'].replace('_', ' ')} "
            f"{_known(won['before'])} before, {_known(won['after'])} after"
        )
    for alone in data["alone"]:
        lines += ["", *_alone(alone)]
    if data["compare"]:
        lines += ["", *_compared(data["compare"])]
    if data["front"]:
        lines += ["", *_front(data["front"])]
    lines += ["", f"report: {out / 'report.html'}   (model.safetensors, model.pt2 and plan.json beside it)"]
    return Outcome(data, "\n".join(lines))


def _costs(data: dict[str, Any]) -> Iterator[str]:
    dense, separable = data["networks"]["dense"], data["networks"]["separable"]
    height, width = data["latency"]["size"]
    yield _row("", "dense", "separable")
    for title, key in (
        ("parameters", "parameters"),
        (f"MACs at {height}x{width}", "macs"),
        ("weight bytes", "weight_bytes"),
    ):
        change = _times(dense[key] / separable[key], "fewer", "MORE")
        yield _row(title, f"{dense[key]:,}", f"{separable[key]:,}", change)


def _latencies(stock: Record, fused: Record) -> Iterator[str]:
    about = stock.about
    yield _row("fastest stock form", about["dense_form"], about["separable_form"])
    threads = f"{about['threads']} thread" + ("s" if about["threads"] > 1 else "")
    timed = f"median of {stock.n} interleaved rounds, {threads}"
    yield f"{'latency, each in it':22}{_speed(stock.value)} ({timed})"
    if fused.value is None:
        yield f"{'latency, fused':22}not measured: {fused.about['why']}"
        return
    pairs, left = fused.about["pairs"], fused.about["left"]
    counted = f"{pairs} of {pairs + left} separable layers as one operation each"
    yield f"{'latency, fused':22}{_speed(fused.value)} ({counted})"


def _alone(alone: dict[str, Any]) -> Iterator[str]:
    if "why" in alone:
        yield f"{alone['form']} layers alone: {alone['why']}"
        return
    yield f"the same budget with {alone['form']} layers alone, fitted by the survey:"
    yield _measure(alone["metric"], alone["agreement"])
    yield f"  {'latency, stock':28}{_speed(alone['latency_ratio'])}"
    fused = alone["fused_latency_ratio"]
    yield f"  {'latency, fused':28}{'not measured' if fused is None else _speed(fused)}"


def _compared(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    metric = next(row["metric"].replace("_", " ") for row in rows if "metric" in row)
    yield f"  {'ways to be so cheap':44}  fewer MACs  fewer parameters  {metric:>11}"
    for row in rows:
        if "why" in row:
            yield f"  {row['method']:44}  {row['why']}"
            continue
        fewer = f"{1 / row['macs_fraction']:9.2f}x  {1 / row['parameters_fraction']:15.2f}x"
        yield f"  {row['method']:44}  {fewer}  {_known(row['agreement']):>11}"


def _front(front: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The table of the least harm at each cost; an arrow points to this conversion."""
    unit, metric = front[0]["unit"].replace("_", " "), front[0]["metric"].replace("_", " ")
    timed = any(row["latency_fraction"] for row in front)
    yield f"the least harm at each cost in {unit}, as planned from the survey; {metric} where it was measured:"
    yield "  fewer MACs  fewer parameters" + "  faster" * timed + f"  predicted harm  {metric:>11}"
    for row in front:
        speed = f"  {1 / row['latency_fraction']:5.2f}x" if timed else ""
        known = "" if row["agreement"] is None else f"{row['agreement']:.4f}"
        line = f"  {1 / row['macs_fraction']:9.2f}x  {1 / row['parameters_fraction']:15.2f}x{speed}"
        arrow = "  <- this conversion" if row["kind"] == "this conversion" else ""
        yield f"{line}  {row['harm']:14.1e}  {known:>11}{arrow}".rstrip()


def _measure(metric: str, value: float | None) -> str:
    return f"  {metric.replace('_', ' '):28}{_known(value)}"


def _known(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _speed(ratio: float) -> str:
    return _times(ratio, "faster", "SLOWER")


def _row(title: str, dense: str, separable: str, change: str = "") -> str:
    return f"{title:22}{dense:>22}{separable:>22}   {change}".rstrip()


def _times(ratio: float, better: str, worse: str) -> str:
    return f"{ratio:.2f}x {better}" if ratio >= 1 else f"{1 / ratio:.2f}x {worse}"
