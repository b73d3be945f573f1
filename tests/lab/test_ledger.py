"""The ledger is whole, and what `list` says of it."""

import re

import pytest

from sepwise.lab import LEDGER, SCALES, VERDICTS, Finding, Folder, Result, judged, named, names
from sepwise.lab.judged import of_recipe

IDS = [f"A{n}" for n in range(1, 10)] + [f"U{n}" for n in range(1, 6)] + [f"G{n}" for n in range(1, 9)]


def test_every_claim_has_a_recipe():
    assert [c.id for c in LEDGER] == IDS
    for claim in LEDGER:
        assert claim.id in named(claim.recipe).claims


@pytest.mark.parametrize("name", names())
def test_a_recipe_says_what_it_asks_and_what_it_tries(name):
    recipe = named(name)
    assert recipe.asks.endswith("?") or "figure" in recipe.asks
    for scale in SCALES:
        arms = recipe.arms(scale)
        assert len({arm.name for arm in arms}) == len(arms) >= 1
        assert recipe.seeds(scale) >= 1
    assert re.fullmatch("[0-9a-f]{12}", recipe.version)


@pytest.mark.parametrize("name", names())
def test_nothing_is_shown_by_nothing(name):
    found = named(name).findings([])
    assert {f.verdict for f in found} <= {"not shown"}


def test_nothing_has_been_run_in_an_empty_folder(tmp_path):
    found = judged(Folder(tmp_path), "small")
    assert [j.claim.id for j in found] == IDS
    assert all(j.verdict is None and j.done == 0 and j.of >= 1 for j in found)
    assert not list(tmp_path.iterdir())


def test_a_claim_with_trials_has_a_verdict(tmp_path, monkeypatch):
    recipe = named("arithmetic")
    wrong = [Result(arm.name, 0, recipe.trial(arm.settings, 0, None)) for arm in recipe.arms("small")]  # type: ignore[arg-type]
    monkeypatch.setattr(Folder, "results", lambda *_: wrong)
    found = {j.claim.id: j for j in of_recipe(recipe, Folder(tmp_path), "small")}
    assert {j.verdict for j in found.values()} == {"holds"}
    wrong[3].numbers["pointwise"] += 1
    found = {j.claim.id: j for j in of_recipe(recipe, Folder(tmp_path), "small")}
    assert found["A5"].verdict == "does not hold"
    row = next(r for r in found["A5"].to_dict()["table"] if r["number"] == "pointwise")
    assert (row["claimed"], row["computed"]) == ("49,152", "49,153")
    assert set(VERDICTS) >= {j.verdict for j in found.values()}
    assert isinstance(found["A5"].finding, Finding)
