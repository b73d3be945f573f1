"""Changes of weights between two calls, noticed at the price of a few numbers instead of a look at every weight."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.utils.hooks import RemovableHandle

from ..graph.rewriting import hooked

FIRST = 100  # version of weights that are counted together: what PyTorch swaps for one of them starts anew


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


class _Read(NamedTuple):
    """What was read of layers. Put in its place at once, so that threads see all of it or nothing."""

    after: object  # the last change before
    weights: list[Tensor]
    which: object  # another one whenever `weights` are others
    told_by: list[Tensor]  # whose versions tell of changes in place of them all


class Changes:
    """A state of layers that differs whenever what was made of their weights may have to be made anew.

    It differs where parameters were replaced or changed in place, where hooks came or went, and where gradients are
    asked for. It does not tell where tensors were given other memory (`.data`) or changed behind PyTorch's back:
    whoever keeps their addresses sees that.

    layers     whose `_parameters` are replaced by dictionaries that note changes
    counted    weights that `count_together` made: one number then tells of all of them
    """

    def __init__(self, layers: Sequence[nn.Module], counted: Sequence[Tensor] = ()) -> None:
        self._layers, self._counted = layers, {weight._cdata for weight in counted}
        for layer in layers:
            if not isinstance(layer._parameters, Parameters):
                layer._parameters = Parameters(layer._parameters)
        self._hooks, self._is_hooked = -1, False
        self.look_again()

    def look_again(self) -> None:
        """Trust nothing that was seen before."""
        self._read = _Read(None, [], None, [])

    @property
    def weights(self) -> list[Tensor]:
        return self._read.weights

    @property
    def told_by(self) -> list[Tensor]:
        """The weights that are looked at."""
        return self._read.told_by

    def state(self) -> tuple[Any, ...]:
        if self._hooks != RemovableHandle.next_id or self._is_hooked:  # counts all hooks, whatever they hang on
            self._hooks, self._is_hooked = RemovableHandle.next_id, any(map(hooked, self._layers))
        after, weights, which, told_by = self._read
        if after is not Parameters.last_change:
            self._read = _, weights, which, told_by = self._again(weights, which)
        trained = torch.is_grad_enabled() and [weight.requires_grad for weight in weights]
        return self._is_hooked, trained, which, _versions(told_by)

    def _again(self, before: list[Tensor], which: object) -> _Read:
        after = Parameters.last_change  # before they are read: what changes meanwhile is read once more
        found = [weight for layer in self._layers for weight in layer._parameters.values() if weight is not None]
        weights: list[Tensor] = [*found]
        if len(weights) != len(before) or any(map(operator.is_not, weights, before)):
            which = object()
        versions = {*_versions(weights)}
        together = len(versions) == 1 and min(versions) >= FIRST and {w._cdata for w in weights} <= self._counted
        return _Read(after, weights, which, weights[:1] if together else weights)


def _versions(weights: Sequence[Tensor]) -> list[int]:
    """How often each was changed in place; tensors made in inference mode do not count that."""
    return [0 if weight.is_inference() else weight._version for weight in weights]


def count_together(network: nn.Module) -> list[Tensor]:
    """Let all parameters of a network share one count of changes in place; the parameters that do now.

    PyTorch keeps that count for each tensor, and views share it. So each parameter is replaced by one that was made of
    the same empty tensor and then given the memory of the old one. Parameters of other classes stay as they are.
    """
    one = torch.empty(0)
    if one.is_inference():
        return []
    increment_version([one] * FIRST)
    made: dict[int, tuple[Tensor, Tensor]] = {}  # with the old one, whose number may else become that of another
    for module in network.modules():
        for name, weight in module._parameters.items():
            if type(weight) is not nn.Parameter or weight.is_inference():
                continue
            if id(weight) not in made:
                new = nn.Parameter(one, requires_grad=weight.requires_grad)
                new.data = weight.data
                vars(new).update(vars(weight))
                made[id(weight)] = weight, new
            module._parameters[name] = made[id(weight)][1]  # type: ignore[assignment]
    return [new for _, new in made.values()]
