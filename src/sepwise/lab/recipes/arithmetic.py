"""Do the multiplications of the articles add up?

Claims A1, A2 and A4 to A8 are exact: each is computed by `sepwise.measure.explain` from shapes alone, and compared with
what the claim says, number by number. A "trial" is one claim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...measure.explain import explain, explain_matrix
from ..ledger import FAILS, HOLDS
from ..recipe import Arm, At, Finding, Numbers, Result

SEEDS = {"smoke": 1, "small": 1, "paper": 1}
ARTICLE = {"size": (12, 12), "in_channels": 3, "kernel": (5, 5), "outputs": 256}
QUESTION = {"size": (7, 7), "in_channels": 3, "kernel": (3, 3), "outputs": 128}

# What each claim says, under the names that `trial` gives its numbers.
SAID: dict[str, dict[str, Any]] = {
    "A1": {"column": [3, 4, 5], "row": [1, 2, 3], "multiplications": [9, 6]},
    "A2": {"column": [1, 2, 1], "row": [-1, 0, 1], "error": 0.0},
    "A4": {"output": [8, 8, 256], "multiplications": 1_228_800},
    "A5": {"depthwise": 4_800, "pointwise": 49_152, "multiplications": 53_952},
    "A6": {"depthwise output": [8, 8, 6]},
    "A7": {"dense": [5, 5, 128], "depthwise": [5, 5, 3], "pointwise": [5, 5, 128]},
    "A8": {"spatial": [[5, 1], [1, 3]], "depthwise": [[5, 3, 1], [1, 1, 16]]},
}
NOTES = {
    "A5": "The article prints 52,952 in its next sentence, and 12×12×256 as the output of the dense convolution "
    "(8×8×256 without padding): both are slips.",
    "A8": "Read as kernel sizes: W×H×1 filters each channel alone, 1×1×D mixes channels at one pixel.",
}


def arms(scale: str) -> list[Arm]:
    return [Arm(claim, {"claim": claim}) for claim in SAID]


def trial(settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    return _COUNTED[settings["claim"]]()


def findings(results: Sequence[Result]) -> list[Finding]:
    return [_finding(r.arm, r.numbers) for r in sorted(results, key=lambda r: r.arm)]


def _finding(claim: str, found: Numbers) -> Finding:
    said = SAID[claim]
    table = [{"number": name, "claimed": _plain(said[name]), "computed": _plain(found[name])} for name in said]
    wrong = [row["number"] for row in table if row["claimed"] != row["computed"]]
    says = f"{len(said) - len(wrong)} of {len(said)} numbers are as claimed."
    if claim in NOTES:
        says = f"{says} {NOTES[claim]}"
    return Finding(claim, FAILS if wrong else HOLDS, says, table)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join("×".join(map(str, v)) if isinstance(v, list) else str(v) for v in value)
    return f"{value:,}"


def _a1() -> Numbers:
    found = explain_matrix([[3, 6, 9], [4, 8, 12], [5, 10, 15]])
    counted = found.to_dict()["multiplications"]
    column, row = found.separated.column, found.separated.row
    return {"column": list(column), "row": list(row), "multiplications": [counted["dense"], counted["separable"]]}


def _a2() -> Numbers:
    separated = explain_matrix([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]).separated
    return {"column": list(separated.column), "row": list(separated.row), "error": float(separated.error)}


def _a4() -> Numbers:
    found = explain(**ARTICLE)
    return {"output": list(found.output), "multiplications": found.forms["dense"].multiplications}


def _a5() -> Numbers:
    form = explain(**ARTICLE).forms["depthwise"]
    depthwise, pointwise = (step.multiplications for step in form.steps)
    return {"depthwise": depthwise, "pointwise": pointwise, "multiplications": form.multiplications}


def _a6() -> Numbers:
    form = explain(**ARTICLE, depth_multiplier=2).forms["depthwise"]
    return {"depthwise output": list(form.steps[0].shape)}


def _a7() -> Numbers:
    forms = explain(**QUESTION).forms
    depthwise, pointwise = (list(step.shape) for step in forms["depthwise"].steps)
    return {"dense": list(forms["dense"].steps[0].shape), "depthwise": depthwise, "pointwise": pointwise}


def _a8() -> Numbers:
    """A 5×3 kernel on 16 channels: N = W = 5, M = H = 3, D = 16."""
    forms = explain((12, 12), 16, (5, 3), 16).forms
    spatial = [list(step.conv.geometry.kernel) for step in forms["spatial"].steps]
    seen = [[*s.conv.geometry.kernel, s.conv.in_channels // s.conv.groups] for s in forms["depthwise"].steps]
    return {"spatial": spatial, "depthwise": seen}


_COUNTED = {"A1": _a1, "A2": _a2, "A4": _a4, "A5": _a5, "A6": _a6, "A7": _a7, "A8": _a8}
