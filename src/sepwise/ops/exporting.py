"""What `torch.export` writes where an operator of ours would run: stock operations, or for a while our operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_ours = ContextVar("our operators are exported", default=False)


def exports_stock() -> bool:
    """Whether a program is being exported that is to run where sepwise is not installed."""
    return torch.compiler.is_exporting() and not _exports_ours()


@torch.compiler.assume_constant_result  # Dynamo cannot look into a ContextVar
def _exports_ours() -> bool:
    return _ours.get()


@contextmanager
def operators_exported() -> Iterator[None]:
    """Within it, exported programs call our operators wherever the network would call them without gradients."""
    token = _ours.set(True)
    try:
        with torch.no_grad():
            yield
    finally:
        _ours.reset(token)
