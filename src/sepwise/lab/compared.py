"""What recipes say about arms that differ in test error: tables, charts, and verdicts set down beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from . import verdict
from .classify import by_arm
from .ledger import FAILS, HOLDS, NOT_SHOWN
from .recipe import Finding, Result

FEWEST = 3  # seeds


def too_few(claim: str, errors: dict[str, list[float]], wanted: Iterable[str]) -> Finding | None:
    """The finding when an arm is missing or fewer than three seeds are finished in all of them; None otherwise."""
    missing = [arm for arm in wanted if arm not in errors]
    seeds = min((len(values) for values in errors.values()), default=0)
    if not missing and seeds >= FEWEST:
        return None
    lacking = f"; none of {', '.join(missing)}" if missing else ""
    return Finding(claim, NOT_SHOWN, f"{seeds} seeds are finished in all arms tried{lacking}: too few to say anything.")


def ordered(errors: dict[str, list[float]], pairs: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Verdict and sentence on "the first of each pair has the lower error": paired t over seeds, Holm's correction.

    Holds if all are shown, does not hold if one is shown to be the other way round.
    """
    gaps = {f"{low} against {high}": (errors[low], errors[high]) for low, high in pairs}
    shown = verdict.differ(gaps)
    means = {name: verdict.difference(*both) for name, both in gaps.items()}
    parts = [
        f"{name}: {means[name]} points" + (", shown" if shown[name] else f", not shown ({_would_show(*gaps[name])})")
        for name in gaps
    ]
    says = f"Difference of test error, {len(next(iter(errors.values())))} seeds: {'; '.join(parts)}."
    if any(shown[name] and means[name].mean > 0 for name in gaps):
        return FAILS, says
    return (HOLDS if all(shown.values()) else NOT_SHOWN), says


def no_impact(of: Sequence[float], to: Sequence[float], margin: float) -> tuple[str, str]:
    """Verdict and sentence on "the two are equivalent within ± margin points"."""
    gap, p = verdict.difference(of, to), verdict.equivalent(of, to, margin)
    differs = verdict.differ({"": (of, to)})[""]
    says = (
        f"Separable minus dense: {gap} points of test error, {len(of)} seeds"
        f"{', shown' if differs else ', not shown to differ'}; equivalent within ± {margin} points: "
        f"{'shown' if p < 0.05 else 'not shown'} (p = {p:.3f})."
    )
    return (FAILS if differs else HOLDS if p < 0.05 else NOT_SHOWN), says


def errors_table(results: Sequence[Result], baseline: str | None = None) -> list[dict[str, Any]]:
    """One row for each arm: size, error with its interval, and the paired difference from the baseline."""
    errors = by_arm(results)
    rows = []
    for arm, values in errors.items():
        one = [r.numbers for r in results if r.arm == arm]
        row = {
            "arm": arm,
            "parameters": one[0]["parameters"],
            "macs": one[0]["macs"],
            "test error, %": str(verdict.mean_of(values)),
            "seeds": len(values),
            "diverged": sum(numbers["diverged"] for numbers in one),
        }
        if baseline is not None:
            row["difference, points"] = "" if arm == baseline else str(verdict.difference(values, errors[baseline]))
        rows.append(row)
    return rows


def errors_chart(errors: dict[str, list[float]]) -> dict[str, Any]:
    """Every arm with its seeds and the interval of its mean."""
    rows = [{"name": arm, "values": values, **verdict.mean_of(values).shown()} for arm, values in errors.items()]
    return {"kind": "intervals", "rows": rows, "x": "test error, %"}


def _would_show(of: Sequence[float], to: Sequence[float]) -> str:
    return f"{verdict.smallest_seen(of, to):.2f} would have been"
