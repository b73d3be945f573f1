"""G8: every way computes one function and is timed beside the others; verdicts follow from the ratios."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from sepwise.errors import SepwiseError
from sepwise.lab import Inputs, named
from sepwise.lab.faster import BEST, WAYS
from sepwise.lab.recipe import At, Result
from sepwise.lab.recipes import speed
from sepwise.report.lab import figures

RECIPE = named("speed")
RESULTS = Path(__file__).resolve().parents[3] / "bench" / "results"
SETTINGS = {"channels": 8, "size": 6, "rounds": 3, "threads": 1}


def no_pictures():
    pytest.fail("no pictures are needed")


def measured(times, seeds=3, shapes=10, wobble=0.01):
    """Every shape with these ratios of time, in the order of WAYS, at a tenth of the multiplications."""
    return [
        Result(
            f"shape {i}",
            seed,
            {
                "multiplications": 0.1 + 0.001 * i,
                "ratios": {way: t * (1 + wobble * seed) for way, t in zip(WAYS, times, strict=True)},
                "best": {},
                "times": {},
            },
        )
        for i in range(shapes)
        for seed in range(seeds)
    ]


def test_a_trial_times_all_ways_side_by_side():
    before = torch.get_num_threads()
    found = RECIPE.trial(SETTINGS, 0, At(no_pictures))
    assert found["multiplications"] == pytest.approx((8 * 9 + 8 * 8) / (8 * 8 * 9))
    assert set(found["ratios"]) == set(WAYS)
    assert all(ratio > 0 for ratio in found["ratios"].values())
    dense = [name for name in found["times"] if name.startswith("dense")]
    assert len(dense) == 2  # contiguous and channels_last
    assert found["best"]["dense"] in dense
    assert all(t["threads"] == 1 and t["rounds"] == 3 for t in found["times"].values())
    assert torch.get_num_threads() == before
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("broken", ["separable_conv2d", "two convolutions"])
def test_a_wrong_answer_is_not_timed(monkeypatch, broken):
    if broken == "separable_conv2d":
        right = speed.separable_conv2d
        monkeypatch.setattr(speed, broken, lambda *args, **named: 1.01 * right(*args, **named))
    else:
        right = nn.Sequential.forward
        monkeypatch.setattr(nn.Sequential, "forward", lambda self, x: 1.01 * right(self, x))
    with pytest.raises(SepwiseError, match=f"refusing to time {broken}"):
        RECIPE.trial(SETTINGS, 0, At(no_pictures))


@pytest.mark.parametrize(
    ("times", "verdict"),
    [((0.5, 0.2), "holds"), ((1.5, 0.2), "holds"), ((1.5, 1.2), "does not hold"), ((0.99, 0.99), "does not hold")],
)
def test_the_faster_way_decides(times, verdict):
    [found] = RECIPE.findings(measured(times))  # 0.99 wobbles up to 1.01: not faster
    assert (found.claim, found.verdict) == ("G8", verdict)
    assert len(figures(found.figure)) == 1
    assert f"{WAYS[0]}: faster in {10 if times[0] < 0.9 else 0} of 10 shapes" in found.says
    assert BEST in found.says
    row = found.table[0]
    kept = (1 - times[1] * (1 + 0.01 + 0.0)) / 0.9
    assert float(row[f"saving kept, {WAYS[1]}"].rstrip("%")) / 100 == pytest.approx(kept, abs=0.01)


def test_half_of_the_shapes_is_not_most():
    fast, slow = measured((0.5, 0.2), shapes=5), measured((1.5, 1.2), shapes=10)[15:]
    [found] = RECIPE.findings([*fast, *slow])
    assert found.verdict == "not shown"


@pytest.mark.parametrize("results", [[], measured((0.5, 0.2), seeds=1), measured((0.5, 0.2), shapes=7)])
def test_too_little_shows_nothing(results):
    [found] = RECIPE.findings(results)
    assert found.verdict == "not shown"


def test_records_are_told_beside_and_judge_nothing():
    arm = RECIPE.arms("small")[-1]
    with pytest.raises(SepwiseError, match="pass --benchmarks, for example bench/results"):
        RECIPE.trial(arm.settings, 0, At(no_pictures))
    numbers = RECIPE.trial(arm.settings, 0, At(no_pictures, Inputs(benchmarks=str(RESULTS))))
    [found] = RECIPE.findings([Result(arm.name, 0, numbers)])
    assert found.verdict == "not shown"
    assert "at the machine's full rate" in found.says
    assert len(figures(found.figure)) == 1
    runtimes = {row["runtime"] for row in found.table if "runtime" in row}
    assert {"ours", "eager", "onnx runtime", "open vino", "compiled"} <= runtimes
    [both] = RECIPE.findings([*measured((1.5, 1.2)), Result(arm.name, 0, numbers)])
    assert both.verdict == "does not hold"
    assert len(figures(both.figure)) == 2


def test_calls_too_short_for_the_clock_are_repeated():
    calls = []
    count = speed._repeats(lambda: calls.append(1))
    assert count > 100
    calls.clear()
    speed._block(lambda: calls.append(1), count)()
    assert len(calls) == count
