"""Ghosh's figure 4: is the hybrid of ResNeXt and Inception nearer to a separable network than either of them?

The paper trains six networks of one block each, 190 epochs, and reports the mean over ten trials of |test error - test
error of the separable network|, on 6,000 test pictures drawn at random. It gives neither depth nor width, nor how it
trained. Chosen here: a 3x3 stem, then three stages of two blocks at w, 2w and 4w channels, the second and the third at
half the size, mean, linear layer; norm and ReLU after each block and none inside a separable one; stochastic gradient
descent (`lab/train.py`). w = 16 at scale small, 64 at scale paper.

Arms with the same widths as the separable network have more parameters and multiplications than it has, so each of
them is also tried at (nearly) the same number of parameters, and of multiplications, with other widths.

Set down before the first trial:
- The strict reformulation is the same function (recipe equal_functions): what it shows is noise. So is the difference
  of the separable network from itself with another seed, the noise floor.
- G1 (the published table) holds if Inception, ResNeXt and reformulated Inception each differ from the separable
  network (paired t over seeds, Holm's correction, 5 %) while the strict reformulation and the hybrid are equivalent to
  it within MARGIN points (two one-sided tests, 5 %). It does not hold if the hybrid differs, or if one of the three is
  equivalent.
- G2 holds if |mean difference| of the hybrid is below that of both Inception and ResNeXt in 97.5 % of resamplings of
  the seeds, and does not hold if above one of them in as many.
The hybrid is trained in its cheapest drawing, a separable block with a shortcut: the same function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from ...measure import cost
from ...nn.blocks import Block, InceptionModule, ReformulatedInception, ResNeXtModule, SeparableBlock, SplitSum
from ...zoo.stacked import Stacked
from .. import verdict
from ..classify import SEEDS, by_arm, classify, length
from ..ledger import FAILS, HOLDS, NOT_SHOWN
from ..recipe import Arm, At, Finding, Numbers, Result

__all__ = ["SEEDS", "arms", "findings", "trial"]

BASELINE = "separable"
BLOCKS: dict[str, tuple[type[Block], dict[str, Any]]] = {
    BASELINE: (SeparableBlock, {}),
    "inception": (InceptionModule, {}),
    "resnext": (ResNeXtModule, {"cardinality": 8}),
    "reformulated inception": (ReformulatedInception, {}),
    "strict reformulation": (SplitSum, {}),
    "hybrid": (SeparableBlock, {"identity": True}),
}
WIDTH = {"smoke": 8, "small": 16, "paper": 64}
DEPTH = 2
MATCHED = ("parameters", "macs")
MARGIN = 0.4  # points: about half-way between what the paper gives the hybrid (0.12) and ResNeXt (0.62)
PUBLISHED = {
    "inception": 0.83,
    "resnext": 0.62,
    "reformulated inception": 0.71,
    "strict reformulation": 0.08,
    "hybrid": 0.12,
}


@cache
def arms(scale: str) -> list[Arm]:
    width = WIDTH[scale]
    found = [Arm(name, {"block": name, "width": width, **length(scale)}) for name in BLOCKS]
    for unit in MATCHED if scale != "smoke" else ():
        for name in ("inception", "resnext", "reformulated inception", "hybrid"):
            settings = {"block": name, "width": _matched(name, unit, width), **length(scale)}
            found.append(Arm(f"{name}, equal {unit}", settings))
    return found


def trial(settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    return classify(lambda: _network(settings["block"], settings["width"]), settings, seed, at)


def _network(name: str, width: int) -> Stacked:
    kind, own = BLOCKS[name]
    return Stacked(lambda i, o, s: kind(i, o, stride=s, **own), (width, 2 * width, 4 * width), DEPTH)


def _matched(name: str, unit: str, width: int) -> int:
    """The width, a multiple of 4, at which the network has nearly as many parameters (or macs) as the baseline."""
    wanted = _count(BASELINE, unit, width)
    return min(range(4, 2 * width + 1, 4), key=lambda w: abs(_count(name, unit, w) - wanted))


@cache
def _count(name: str, unit: str, width: int) -> int:
    with torch.random.fork_rng():
        return getattr(cost(_network(name, width).eval(), torch.zeros(1, 3, 32, 32)), unit)


def findings(results: Sequence[Result]) -> list[Finding]:
    errors = by_arm(results, "error_6000")
    base = errors.get(BASELINE, [])
    if len(base) < 3 or len(errors) < len(BLOCKS):
        says = f"{len(base)} seeds finished in all of {len(errors)} arms: too few to say anything."
        return [Finding(claim, NOT_SHOWN, says) for claim in ("G1", "G2")]
    floor = verdict.noise_floor(base)
    table = [_row(arm, values, base, results) for arm, values in errors.items()]
    return [_published(errors, floor, table), _nearer(errors)]


def _row(arm: str, values: list[float], base: list[float], results: Sequence[Result]) -> dict[str, Any]:
    one = next(r.numbers for r in results if r.arm == arm)
    row = {
        "arm": arm,
        "parameters": one["parameters"],
        "macs": one["macs"],
        "error, %": str(verdict.mean_of(values)),
        "seeds": len(values),
    }
    if arm == BASELINE:
        return row
    return row | {
        "mean |difference|": str(verdict.absolute_difference(values, base)),
        "published": PUBLISHED.get(arm),
        "mean difference": str(verdict.difference(values, base)),
        f"p of equivalence, ± {MARGIN}": round(verdict.equivalent(values, base, MARGIN), 4),
        "smallest that would show": round(verdict.smallest_seen(values, base), 2),
    }


def _published(errors: dict[str, list[float]], floor: verdict.Interval, table: list[dict[str, Any]]) -> Finding:
    base = errors[BASELINE]
    said = {arm: verdict.absolute_difference(errors[arm], base) for arm in PUBLISHED}
    differs = verdict.differ({arm: (errors[arm], base) for arm in PUBLISHED})
    same = {arm: verdict.equivalent(errors[arm], base, MARGIN) < 0.05 for arm in PUBLISHED}
    others = ("inception", "resnext", "reformulated inception")
    if differs["hybrid"] or any(same[arm] for arm in others):
        decided = FAILS
    elif all(differs[arm] for arm in others) and same["hybrid"] and same["strict reformulation"]:
        decided = HOLDS
    else:
        decided = NOT_SHOWN
    names = {True: "differs", False: "does not differ"}
    parts = [f"{arm} {said[arm].mean:.2f} (published {PUBLISHED[arm]}; {names[differs[arm]]})" for arm in PUBLISHED]
    says = (
        f"Mean |difference| of test error from the separable network, {len(base)} seeds, points: {'; '.join(parts)}. "
        f"The separable network differs from itself with another seed by {floor}: no smaller number means anything. "
        f"Equivalent within {MARGIN}: {', '.join(a for a in same if same[a]) or 'none'}."
    )
    rows = [{"name": arm, **said[arm].shown()} for arm in said]
    lines = [{"name": "noise floor", "at": floor.mean}]
    return Finding("G1", decided, says, table, {"kind": "intervals", "rows": rows, "lines": lines, "x": AXIS})


AXIS = "mean |difference of test error from separable|, points"


def _nearer(errors: dict[str, list[float]]) -> Finding:
    gaps = {arm: np.array(errors[arm]) - np.array(errors[BASELINE]) for arm in ("hybrid", "resnext", "inception")}
    random = np.random.default_rng(0)
    n = len(gaps["hybrid"])
    drawn = random.integers(0, n, (verdict.RESAMPLES, n))
    far = {arm: np.abs(values[drawn].mean(1)) for arm, values in gaps.items()}
    nearer = {arm: float((far["hybrid"] < far[arm]).mean()) for arm in ("resnext", "inception")}
    low, high = (1 - verdict.LEVEL) / 2, 1 - (1 - verdict.LEVEL) / 2
    decided = NOT_SHOWN
    if min(nearer.values()) >= high:
        decided = HOLDS
    elif min(nearer.values()) <= low:
        decided = FAILS
    shown = {arm: verdict.difference(errors[arm], errors[BASELINE]) for arm in gaps}
    says = (
        "Mean difference of test error from the separable network, points: "
        + "; ".join(f"{arm} {interval}" for arm, interval in shown.items())
        + f". The hybrid is nearer than ResNeXt in {100 * nearer['resnext']:.1f} % of resamplings of the seeds, nearer "
        f"than Inception in {100 * nearer['inception']:.1f} %."
    )
    rows = [{"name": arm, "values": gaps[arm].tolist(), **interval.shown()} for arm, interval in shown.items()]
    lines = [{"name": "separable", "at": 0.0}]
    figure = {"kind": "intervals", "rows": rows, "lines": lines, "x": "difference of test error from separable, points"}
    return Finding("G2", decided, says, (), figure)
