"""Trials on a Ray cluster: each once, also when a worker is killed."""

import os
import signal
import threading
import time

import pytest

from sepwise.errors import SepwiseError
from sepwise.lab import Folder, Inputs, named
from sepwise.lab.trials import trials

ray = pytest.importorskip("ray", reason="the extra ray is not installed: pip install 'sepwise[ray]'")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


def workers() -> list[int]:
    """Process numbers of Ray's workers that run a trial."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/cmdline", "rb") as file:
                if b"ray::_trial" in file.read():
                    found.append(int(process))
        except OSError:
            pass
    return found


def test_a_killed_worker_costs_no_trial(tmp_path, inputs):
    from sepwise.lab.on_ray import run_on_ray

    killed = []

    def kill() -> None:
        for _ in range(1200):
            for process in workers()[:1]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    left = run_on_ray("darknet", "smoke", tmp_path, inputs, "local", seeds=2)
    killer.join()
    recipe, folder = named("darknet"), Folder(tmp_path)
    assert killed
    assert left == 0
    assert len(folder.trials(recipe)) == len(trials(recipe, "smoke", 2)) == 4
    assert folder.file(recipe).read_text().count('"lab.trial"') == 4
    assert folder.damaged(recipe) == []


def test_refusals_and_clusters_that_are_not_there(tmp_path):
    from sepwise.lab.on_ray import run_on_ray

    with pytest.raises(SepwiseError, match="this recipe needs CIFAR-10: pass --data"):
        run_on_ray("darknet", "smoke", tmp_path, Inputs(), "local", seeds=1)
    with pytest.raises(SepwiseError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        run_on_ray("darknet", "smoke", tmp_path, Inputs(), "127.0.0.1:1", seeds=1)
