"""Real inputs: what is refused, and that a program which dies without a word is told all the same."""

import subprocess

import pytest

from bench import activations
from bench.workload import Workload
from sepwise.errors import SepwiseError


def picture(data="hed:astronaut", channels=64):
    return Workload("real", 1, channels, 64, 8, 8, 3, 1, 1, 1, None, None, data)


def test_random_numbers_are_drawn_elsewhere():
    assert activations.load(picture("normal")) is None


@pytest.mark.parametrize("workload", [picture("hedd:astronaut"), picture(channels=32)])
def test_what_is_no_input_is_refused(workload):
    with pytest.raises(SepwiseError, match=r'expected "normal", or "hed:PICTURE" at batch 1 and 64 channels'):
        activations.load(workload)


@pytest.mark.parametrize(
    ("code", "printed", "why"),
    [(1, "Traceback\nSepwiseError: no picture\n", "SepwiseError: no picture"), (-9, "", "it ended by signal 9")],
)
def test_why_the_program_failed_is_told(monkeypatch, code, printed, why):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, code, "", printed))
    with pytest.raises(SepwiseError, match=f"no activations of hed:astronaut: {why}"):
        activations.load(picture())
