"""Nothing is decided by the clock; the programs that rows make."""

import sys

import pytest

from sepwise.conversion import fuse, programs
from sepwise.ops.program import Program, Step


@pytest.fixture
def programs_made(monkeypatch) -> list[list[Step]]:
    """The steps of each program that a row makes from now on."""
    made: list[list[Step]] = []

    def noted(given, steps, *more):
        made.append(steps)
        return Program(given, steps, *more)

    monkeypatch.setattr(programs, "Program", noted)
    return made


@pytest.fixture(autouse=True)
def no_clock(monkeypatch):
    """A lone convolution of ours is faster, a longer row is not."""
    monkeypatch.setattr("sepwise.conversion.timed._ratio", lambda layer, inputs: 0.5)
    monkeypatch.setattr(sys.modules[fuse.__module__], "is_faster", lambda network, than, x: False)
