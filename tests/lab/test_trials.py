"""Each trial once, by one process, one whole record: beside other processes, after changes, with a damaged file."""

import json
import multiprocessing
import subprocess
import sys

import pytest
from small_recipes import RECIPE

from sepwise import records
from sepwise.lab.recipe import Arm, At, Inputs, Recipe
from sepwise.lab.trials import Folder, Trial, attempt, trials


def nothing(done: float) -> None:
    pass


def do(trial: Trial, folder: Folder) -> bool:
    return attempt(trial, folder, Inputs(), lambda: pytest.fail("no pictures needed"), nothing)


def done(recipe: Recipe, folder: Folder, scale: str = "smoke") -> Folder:
    for trial in trials(recipe, scale):
        assert do(trial, folder)
    return folder


def test_trials_are_arms_times_seeds_seed_by_seed(recipe_of):
    found = trials(recipe_of(), "small")
    assert [(t.seed, t.arm.name) for t in found] == [(s, a) for s in range(3) for a in ("none", "one")]
    assert len(trials(recipe_of(), "small", seeds=5)) == 10
    assert len({t.key for t in [*found, *trials(recipe_of(), "paper")]}) == 6 + 8


def test_a_finished_trial_is_one_record_and_is_not_done_again(recipe_of, tmp_path):
    recipe = recipe_of()
    folder = done(recipe, Folder(tmp_path / "results"))
    kept = folder.file(recipe).read_bytes()
    for trial in trials(recipe, "smoke"):
        assert not do(trial, folder)
    assert folder.file(recipe).read_bytes() == kept
    found = list(records.read(folder.file(recipe)))
    assert [r.what for r in found] == ["lab.source"] + 4 * ["lab.trial"]
    assert found[0].value.startswith(recipe.source[:100])
    assert found[1].value == {"error": 0}
    assert {k: found[4].about[k] for k in ("recipe", "arm", "seed", "scale")} == {
        "recipe": "made_up", "arm": "one", "seed": 1, "scale": "smoke"
    }  # fmt: skip
    assert found[1].machine["cores"] >= 1
    results = folder.results(recipe, "smoke")
    assert sorted((r.arm, r.seed, r.numbers["error"]) for r in results) == [
        ("none", 0, 0), ("none", 1, 1), ("one", 0, 10), ("one", 1, 11)
    ]  # fmt: skip
    assert folder.results(recipe, "small") == []


def test_a_changed_recipe_keeps_its_old_records_apart(recipe_of, tmp_path):
    folder = done(recipe_of(), Folder(tmp_path / "results"))
    changed = recipe_of(RECIPE.replace("10 * settings", "20 * settings"))
    assert folder.results(changed, "smoke") == []
    done(changed, folder)
    assert max(r.numbers["error"] for r in folder.results(changed, "smoke")) == 21
    assert max(r.numbers["error"] for r in folder.results(recipe_of(), "smoke")) == 11
    assert [r.what for r in records.read(folder.file(changed))].count("lab.source") == 2


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("more than none?", "more?", True),
        ("{len(results)} trials", "so many trials", True),
        ("    at.progress(0.5)", "    # half-way\n    at.progress(0.5)", True),
        ('"smoke": 2', '"smoke": 7', True),
        ("at.progress(0.5)", "at.progress(0.6)", False),
        ('{"n": 1}', '{"n": 2}', False),
    ],
)
def test_the_version_is_what_decides_a_trial_and_nothing_else(recipe_of, old, new, same):
    assert old in RECIPE
    assert (recipe_of(RECIPE.replace(old, new)).version == recipe_of().version) is same


def test_what_a_trial_leads_to_counts(recipe_of):
    text = recipe_text_with("def helper(n):\n    return n\n\n\nUNUSED = 1\n")
    version = recipe_of(text).version
    assert recipe_of(text.replace("return n\n", "return n + 0\n")).version != version
    assert recipe_of(text.replace("UNUSED = 1", "UNUSED = 2")).version == version


def recipe_text_with(helper: str) -> str:
    return RECIPE.replace("def findings", f"{helper}\n\ndef findings").replace("+ seed", "+ helper(seed)")


@pytest.mark.parametrize("line", ['{"what": "lab.trial", "value": {"er', "\x00\x00", "[1]"])
def test_a_damaged_last_line_costs_no_other_record(recipe_of, tmp_path, line):
    recipe, folder = recipe_of(), Folder(tmp_path / "results")
    first, *others = trials(recipe, "smoke")
    assert do(first, folder)
    with open(folder.file(recipe), "a") as file:
        file.write(line)
    for trial in others:
        assert do(trial, folder)
    assert len(folder.results(recipe, "smoke")) == 4
    assert folder.damaged(recipe) == [3]
    good = [n for n, text in enumerate(folder.file(recipe).read_text().splitlines(), 1) if n != 3 and json.loads(text)]
    assert good == [1, 2, 4, 5, 6]


def test_a_full_disk_leaves_the_file_as_it_was(recipe_of, tmp_path, monkeypatch):
    recipe, folder = recipe_of(), Folder(tmp_path / "results")
    first, second, *_ = trials(recipe, "smoke")
    assert do(first, folder)
    before = folder.file(recipe).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(records.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            do(second, folder)
    assert folder.file(recipe).read_bytes() == before
    assert do(second, folder)
    assert len(folder.results(recipe, "smoke")) == 2


def test_a_trial_that_refuses_leaves_no_record_and_its_lock_is_free(recipe_of, tmp_path):
    recipe = recipe_of(RECIPE.replace("at.progress(0.5)", "raise ValueError('no')"))
    folder = Folder(tmp_path / "results")
    trial = trials(recipe, "smoke")[0]
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            do(trial, folder)
    assert folder.trials(recipe) == {}


def test_a_trial_is_told_where_to_keep_its_state_and_that_is_removed(recipe_of, tmp_path):
    recipe = recipe_of(RECIPE.replace("at.progress(0.5)", "assert not at.checkpoint.exists(); at.checkpoint.touch()"))
    folder = Folder(tmp_path / "results")
    trial = trials(recipe, "smoke")[0]
    assert do(trial, folder)
    assert not folder.checkpoint(trial).exists()


def _hold(path, key_file, ready, leave) -> None:
    from filelock import FileLock

    with FileLock(key_file):
        ready.set()
        leave.wait(60)


def test_a_trial_that_another_process_runs_is_left_to_it(recipe_of, tmp_path):
    recipe, folder = recipe_of(), Folder(tmp_path / "results")
    trial = trials(recipe, "smoke")[0]
    folder.unfinished.mkdir(parents=True)
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    lock = folder.checkpoint(trial).with_suffix(".lock")
    other = context.Process(target=_hold, args=(tmp_path, str(lock), ready, leave), daemon=True)
    other.start()
    assert ready.wait(60)
    assert not do(trial, folder)
    other.kill()
    other.join()
    assert do(trial, folder)


APPENDING = """
import sys
from sepwise import records
for n in range(40):
    records.append(sys.argv[1], [records.Record("x", "a" * 3000 + f" {sys.argv[2]} {n}")])
"""


def test_records_of_two_processes_do_not_mix(tmp_path):
    path = tmp_path / "records.jsonl"
    both = [subprocess.Popen([sys.executable, "-c", APPENDING, str(path), str(n)]) for n in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    found = [r.value.split()[1:] for r in records.read(path)]
    assert sorted(found) == sorted([str(p), str(n)] for p in range(2) for n in range(40))


def test_settings_tell_arms_apart(recipe_of):
    recipe = recipe_of()
    one, other = (Trial(recipe, "smoke", Arm("a", {"width": w}), 0) for w in (1, 2))
    assert one.key != other.key
    assert At(lambda: pytest.fail("unread")).checkpoint is None
