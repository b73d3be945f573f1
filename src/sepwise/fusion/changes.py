"""Changes of weights between two calls, noticed at the price of a few numbers instead of a look at every weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.utils import swap_tensors
from torch.utils.hooks import RemovableHandle

from ..graph.rewriting import hooked


class Parameters(dict[str, Any]):
    """Parameters of a module by name. `last_change` is another object after any change of any such dictionary."""

    last_change = object()


def _noted(change: Callable[..., Any]) -> Callable[..., Any]:
    def changing(self: Parameters, *arguments: Any, **named: Any) -> Any:
        try:
            return change(self, *arguments, **named)
        finally:
            Parameters.last_change = object()

    return changing


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(Parameters, _name, _noted(getattr(dict, _name)))


class Look(NamedTuple):
    """What was seen of layers. Put in its place at once, so that threads see all of it or nothing.

    As long as `after`, `hooks` and `version` are what they were, so is the mark, unless gradients are asked for. A hook
    anywhere in the process, or another parameter in any network that is watched, asks for another look and no more.
    """

    mark: object
    after: object  # the last change of a dictionary before
    hooks: int  # how many were ever made, whatever they hang on
    told_by: Tensor | None  # whose version tells of all weights; None where each has to be asked
    version: int
    which: tuple[list[int], list[int]]  # parameters, and what PyTorch holds for them
    together: bool  # whether these share the count of `told_by`
    state: tuple[Any, ...]
    weights: list[Tensor]


class Changes:
    """Of some layers: a mark that is another object whenever what was made of their weights may have to be made anew.

    It changes where parameters are replaced or changed in place, where hooks come or go, and where gradients are asked
    for. It does not tell where tensors were given other memory (`.data`) or changed behind PyTorch's back: whoever
    keeps their addresses sees that.

    layers    whose `_parameters` are replaced by dictionaries that note changes
    one       what `count_together` gave for a network that they are part of
    """

    def __init__(self, layers: Sequence[nn.Module], one: Tensor | None = None) -> None:
        self._layers, self._one = layers, one
        for layer in layers:
            if not isinstance(layer._parameters, Parameters):
                layer._parameters = Parameters(layer._parameters)
        self.look_again()

    def look_again(self) -> None:
        """Trust nothing that was seen before."""
        self.last = Look(object(), None, -1, None, -1, ([], []), False, (), [])

    def mark(self) -> object:
        """Looks at every weight. Who is in a hurry compares `last` with what is there, and asks where it differs."""
        self.last = self._look(self.last)
        return self.last.mark

    def _look(self, last: Look) -> Look:
        after, hooks = Parameters.last_change, RemovableHandle.next_id  # first: what changes meanwhile is seen later
        found = [weight for layer in self._layers for weight in layer._parameters.values() if weight is not None]
        weights: list[Tensor] = [*found]
        which = [*map(id, weights)], [weight._cdata for weight in weights]
        together = last.together if which == last.which else self._counts(weights)
        version = -1 if self._one is None else self._one._version
        versions = [0 if weight.is_inference() else weight._version for weight in weights]  # they count no changes
        trained = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        is_hooked = any(map(hooked, self._layers))  # a hook may go without being counted
        told_by = self._one if together and not is_hooked else None
        state = which, versions, trained, is_hooked
        mark = last.mark if state == last.state else object()
        return Look(mark, after, hooks, told_by, version, which, together, state, weights)

    def _counts(self, weights: Sequence[Tensor]) -> bool:
        """Whether the one tensor counts the changes of all of these: tried out."""
        one = self._one
        if one is None or not weights or any(weight.is_inference() for weight in weights):
            return False
        if any(weight._version != one._version for weight in weights):
            return False
        increment_version(one)
        return all(weight._version == one._version for weight in weights)


def count_together(network: nn.Module) -> Tensor | None:
    """Let the parameters of a network share one count of changes in place: the version of the tensor that is returned.

    PyTorch keeps that count for each tensor, and views share it. So what it holds for a parameter is exchanged for a
    view of one empty tensor that was given the memory of the parameter; for Python it remains the same object. Left out
    is what requires gradients, is of a class of its own, or is held by others, weakly or from C++. None in inference
    mode.
    """
    one = torch.empty(0, device="cpu")
    if one.is_inference():
        return None
    for weight in network.parameters():
        counts = type(weight) is nn.Parameter and not weight.is_inference() and not weight.requires_grad
        alike = torch._has_compatible_shallow_copy_type(one, weight)  # type: ignore[reportPrivateImportUsage]
        if counts and weight.grad is None and alike:
            new = nn.Parameter(one, requires_grad=False)
            new.data = weight.data
            vars(new).update(vars(weight))
            with suppress(RuntimeError):
                swap_tensors(weight, new)
    return one
