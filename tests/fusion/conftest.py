"""Nothing is decided by the clock; the programs that rows make."""

import pytest
from clockless import no_clock  # noqa: F401

from sepwise.fusion import programs
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
