"""For tests of what is found by structure: nothing is decided by the clock."""

import sys

import pytest

from sepwise.fusion import fuse


@pytest.fixture(autouse=True)
def no_clock(monkeypatch):
    """A lone convolution of ours is faster, a longer row is not."""
    monkeypatch.setattr("sepwise.fusion.timed._ratio", lambda layer, inputs: 0.5)
    monkeypatch.setattr(sys.modules[fuse.__module__], "is_faster", lambda network, than, x: False)
