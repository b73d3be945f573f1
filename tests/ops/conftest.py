"""What the tests of an op with several implementations ask for."""

from typing import Any

import pytest

from sepwise.ops.separable_conv2d import api


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the implementations that calls of `separable_conv2d` take, in order."""
    names: list[str] = []

    def watched(name: str, prepare: Any) -> Any:
        def prepare_watched(call: Any) -> Any:
            run = prepare(call)
            return lambda *tensors: names.append(name) or run(*tensors)

        return prepare_watched

    for name, implementation in api.IMPLEMENTATIONS.items():
        monkeypatch.setattr(implementation, "prepare", watched(name, implementation.prepare))
    monkeypatch.setattr(api, "_ROUTES", {})
    return names
