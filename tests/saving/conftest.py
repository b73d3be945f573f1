"""The network that is saved: fused once, for all files."""

import pytest
from saved_networks import decide, network, pictures

import sepwise
from sepwise.fusion import FusedNetwork
from sepwise.ops import native


@pytest.fixture(scope="session")
def fused() -> FusedNetwork:
    if native.PROBLEM is not None:
        pytest.skip(native.PROBLEM)
    return decide(sepwise.fuse(network(), pictures()))
