"""Trials in several processes: all of them, a kill costs the running one, and a refusal is a sentence."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sepwise.errors import SepwiseError
from sepwise.lab import Folder, Inputs, named, run
from sepwise.lab.trials import trials


def test_two_workers_do_each_trial_once(tmp_path, inputs):
    told = []
    left = run("darknet", "smoke", tmp_path, inputs, workers=2, progress=lambda done, total: told.append((done, total)))
    recipe, folder = named("darknet"), Folder(tmp_path)
    assert left == 0
    assert len(folder.trials(recipe)) == len(trials(recipe, "smoke")) == len(folder.results(recipe, "smoke"))
    assert len(folder.file(recipe).read_text().splitlines()) == 1 + 4
    assert {total for _, total in told} == {4}
    assert all(0 <= done <= 4 for done, _ in told)
    assert not list(folder.unfinished.glob("*.pt"))
    assert run("darknet", "smoke", tmp_path, inputs, workers=2) == 0
    assert len(folder.file(recipe).read_text().splitlines()) == 1 + 4


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_missing_is_said(tmp_path, workers):
    with pytest.raises(SepwiseError, match="this recipe needs CIFAR-10: pass --data"):
        run("darknet", "smoke", tmp_path, Inputs(), workers=workers)
    with pytest.raises(SepwiseError, match=r"there is no .*train\.parquet: pass --data"):
        run("darknet", "smoke", tmp_path, Inputs(str(tmp_path)), workers=workers)


def test_an_unknown_recipe_is_refused(tmp_path):
    with pytest.raises(SepwiseError, match="there is no recipe 'no'; the recipes are arithmetic, rank_one"):
        run("no", "smoke", tmp_path, Inputs())


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path, inputs):
    command = [sys.executable, "-m", "sepwise.cli", "lab", "run", "darknet", "--scale", "smoke", "--workers", "1"]
    command += ["--data", str(inputs.cifar10), "--results", str(tmp_path)]
    recipe, folder = named("darknet"), Folder(tmp_path)
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    while not folder.trials(recipe) and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = folder.trials(recipe)
    assert before
    assert subprocess.run(command, capture_output=True).returncode == 0
    after = folder.trials(recipe)
    assert len(after) == 4
    assert before.items() <= after.items()
    assert folder.damaged(recipe) == []


@pytest.mark.slow
def test_two_processes_of_torchrun_train_one_network(tmp_path, inputs):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "sepwise.cli", "lab", "run", "darknet", "--scale", "smoke", "--seeds", "1"]
    command += ["--data", str(inputs.cifar10), "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    recipe = named("darknet")
    found = Folder(tmp_path).results(recipe, "smoke")
    assert sorted(r.arm for r in found) == ["dense", "separable"]
    alone = run("darknet", "smoke", tmp_path / "alone", inputs, seeds=1, workers=1)
    assert alone == 0
    for r in Folder(tmp_path / "alone").results(recipe, "smoke"):
        other = next(o for o in found if o.arm == r.arm)
        assert other.numbers["losses"] == pytest.approx(r.numbers["losses"], rel=0.1)  # norms see half a batch each
