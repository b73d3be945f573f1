"""Recipes that train: every arm can be tried, and what is found decides as was set down beforehand."""

import dataclasses
from functools import cache

import numpy as np
import pytest
from small_recipes import made_up

from sepwise.lab import Inputs, named
from sepwise.lab.data import cifar10
from sepwise.lab.recipe import At

TRAINING = ("figure4", "between", "fractal", "darknet", "depth", "width", "inserted")


@pytest.fixture(scope="module")
def at(colours) -> At:
    return At(cache(lambda: cifar10(str(colours))), Inputs())


@pytest.mark.parametrize("name", TRAINING)
def test_every_arm_learns_something(name, at):
    recipe = named(name)
    for arm in recipe.arms("smoke"):
        settings = {**arm.settings, "pictures": 128, "training": {"epochs": 1, "batch": 64}}
        numbers = recipe.trial(settings, 0, at)
        assert numbers["macs"] > 0
        assert not numbers["diverged"]
        assert 0 <= numbers["error"] <= 100
        assert len(numbers["losses"]) == 1


def test_figure_4_compares_equal_sizes_too():
    arms = {arm.name: arm for arm in named("figure4").arms("small")}
    assert len(arms) >= 10
    for name in ("inception", "resnext", "reformulated inception"):
        assert arms[f"{name}, equal parameters"].settings["width"] < arms[name].settings["width"]


BASE = {"separable": 40.0, "strict reformulation": 40.0}
CASES = [
    (
        "figure4",
        BASE | {"hybrid": 40.0, "resnext": 42, "inception": 42, "reformulated inception": 38},
        0.1,
        {"G1": "holds", "G2": "holds"},
    ),
    (
        "figure4",
        BASE | {"hybrid": 44.0, "resnext": 42, "inception": 42, "reformulated inception": 42},
        0.1,
        {"G1": "does not hold", "G2": "does not hold"},
    ),
    (
        "figure4",
        BASE | {"hybrid": 40.0, "resnext": 40, "inception": 40, "reformulated inception": 40},
        0.1,
        {"G1": "does not hold", "G2": "not shown"},
    ),
    (
        "figure4",
        BASE | {"hybrid": 40.0, "resnext": 40.3, "inception": 40.3, "reformulated inception": 40.3},
        3.0,
        {"G1": "not shown", "G2": "not shown"},
    ),
    ("between", {"nothing": 30, "ELU": 31, "ReLU": 32, "norm": 30, "norm and ReLU": 31}, 0.2, {"G4": "holds"}),
    ("between", {"nothing": 33, "ELU": 31, "ReLU": 32, "norm": 30, "norm and ReLU": 31}, 0.2, {"G4": "does not hold"}),
    ("between", {"nothing": 30, "ELU": 30, "ReLU": 32, "norm": 30, "norm and ReLU": 31}, 0.2, {"G4": "not shown"}),
    ("fractal", {"dense": 30, "separable": 30}, 0.2, {"G5": "holds"}),
    ("fractal", {"dense": 30, "separable": 28}, 0.2, {"G5": "does not hold"}),
    ("fractal", {"dense": 30, "separable": 30}, 4.0, {"G5": "not shown"}),
    ("darknet", {"dense": 30, "separable": 28}, 0.2, {"G6": "holds"}),
    ("darknet", {"dense": 30, "separable": 32}, 0.2, {"G6": "does not hold"}),
    ("darknet", {"dense": 30, "separable": 29.9}, 3.0, {"G6": "not shown"}),
    ("inserted", {"plain": 30, "1×1": 30, "1×1, norm": 30, "1×1, norm, ReLU": 28}, 0.2, {"U5": "holds"}),
    ("inserted", {"plain": 30, "1×1": 30, "1×1, norm": 28, "1×1, norm, ReLU": 28}, 0.2, {"U5": "not shown"}),
    ("inserted", {"plain": 27, "1×1": 30, "1×1, norm": 30, "1×1, norm, ReLU": 28}, 0.2, {"U5": "does not hold"}),
]


def depth(dense: float, separable: float) -> dict[str, float]:
    """Errors of plain networks at the largest depth, where residual ones have 20."""
    return {
        f"{kind}, {blocks} blocks, {way}": error if way == "plain" and blocks == 36 else 20
        for kind, error in (("dense", dense), ("separable", separable))
        for blocks in (3, 36)
        for way in ("plain", "residual")
    }


def width(tiny: float, large: float) -> dict[str, float]:
    """What separating costs at two widths."""
    return {"dense, 2": 50, "separable, 2": 50 + tiny, "dense, 32": 20, "separable, 32": 20 + large}


CASES += [
    ("depth", depth(30, 20), 0.2, {"G7": "holds"}),
    ("depth", depth(30, 29.9), 0.2, {"G7": "does not hold"}),
    ("depth", depth(20, 20), 0.2, {"G7": "not shown"}),
    ("depth", depth(30, 24), 0.2, {"G7": "holds"}),
    ("width", width(10, 2), 0.2, {"U4": "holds"}),
    ("width", width(2, 10), 0.2, {"U4": "does not hold"}),
    ("width", width(5, 5), 2.0, {"U4": "not shown"}),
]


@pytest.mark.parametrize(("name", "errors", "noise", "verdicts"), CASES)
def test_what_is_found_decides_as_set_down(name, errors, noise, verdicts):
    found = named(name).findings(made_up(errors, seeds=8, noise=noise))
    assert {f.claim: f.verdict for f in found} == verdicts
    for finding in found:
        assert "nan" not in finding.says
        assert finding.figure


@pytest.mark.parametrize("name", TRAINING)
def test_too_few_seeds_show_nothing(name):
    errors = next(errors for case, errors, _, verdicts in CASES if case == name and "holds" in verdicts.values())
    for finding in named(name).findings(made_up(errors, seeds=2, noise=0.1)):
        assert finding.verdict == "not shown"
        assert "too few to say anything" in finding.says


def test_a_seed_that_an_arm_lacks_counts_for_none():
    results = made_up({"dense": 30, "separable": 28}, seeds=6, noise=0.1)
    last = [r for r in results if (r.arm, r.seed) != ("dense", 5)]
    spoilt = [dataclasses.replace(r, numbers=r.numbers | {"error": 99.0}) if r.seed == 5 else r for r in last]
    (finding,) = named("darknet").findings(spoilt)
    assert finding.verdict == "holds"
    assert {row["seeds"] for row in finding.table} == {5}
    assert np.all([row["diverged"] == 0 for row in finding.table])
