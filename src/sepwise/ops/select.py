"""Which implementation of an op runs: one contract, many implementations, and no silent fallback.

An implementation is a module with two functions, listed once, by name, in its op's `api.py`:

    why_not(call) -> str | None    the reason it cannot run this call, as a sentence; None when it can
    prepare(call) -> function      of the op's tensors, for this call and all of its kind: what the numbers do not
                                   decide is decided here, once. It must not hold on to the tensors of `call`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from ..errors import UnsupportedError


class Implementation(Protocol):
    """What every implementation of an op offers."""

    def why_not(self, call: Any) -> str | None: ...

    def prepare(self, call: Any) -> Callable[..., Tensor]: ...


def select(
    op: str, implementations: Mapping[str, Implementation], order: Sequence[str], call: Any, impl: str
) -> Implementation:
    """The implementation named `impl`; for "auto" the first in `order` that can run the call.

    op       name of the op, for the sentence
    order    names to try for "auto", the fastest first
    Raises UnsupportedError when the named one refuses, quoting its reason, and when the name is unknown.
    """
    if impl == "auto":
        refusals = []
        for name in order:
            reason = implementations[name].why_not(call)
            if reason is None:
                return implementations[name]
            refusals.append(f"    {name}: {reason}")
        raise UnsupportedError("\n".join([f"{op}: no implementation can run this call", *refusals]))
    if impl not in implementations:
        raise UnsupportedError(
            f'{op}: there is no impl={impl!r}; give "auto" or {", ".join(map(repr, implementations))}'
        )
    reason = implementations[impl].why_not(call)
    if reason is not None:
        raise UnsupportedError(f"{op}: impl={impl!r} cannot run this call: {reason}")
    return implementations[impl]
