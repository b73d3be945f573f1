"""Changes of weights between two calls, noticed at the price of a few numbers instead of a look at every weight."""

from __future__ import annotations

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


class Look(NamedTuple):
    """What was seen of layers. Put in its place at once, so that threads see all of it or nothing.

    As long as `after`, `hooks` and `version` are what they were, so is the mark, unless gradients are asked for.
    """

    mark: object
    after: object  # the last change of a dictionary before
    hooks: int  # how many were ever made, whatever they hang on
    told_by: Tensor | None  # whose version tells of all weights; None where each has to be asked
    version: int
    state: tuple[Any, ...]
    weights: list[Tensor]


class Changes:
    """Of some layers: a mark that is another object whenever what was made of their weights may have to be made anew.

    It changes where parameters are replaced or changed in place, where hooks come or go, and where gradients are asked
    for. It does not tell where tensors were given other memory (`.data`) or changed behind PyTorch's back: whoever
    keeps their addresses sees that.

    layers     whose `_parameters` are replaced by dictionaries that note changes
    counted    weights that `count_together` made: one number then tells of all of them
    """

    def __init__(self, layers: Sequence[nn.Module], counted: Sequence[Tensor] = ()) -> None:
        self._layers, self._counted = layers, {weight._cdata for weight in counted}
        for layer in layers:
            if not isinstance(layer._parameters, Parameters):
                layer._parameters = Parameters(layer._parameters)
        self.look_again()

    def look_again(self) -> None:
        """Trust nothing that was seen before."""
        self.last = Look(object(), None, -1, None, -1, (), [])

    @property
    def weights(self) -> list[Tensor]:
        """As they were seen last."""
        return self.last.weights

    @property
    def told_by(self) -> list[Tensor]:
        """The weights that are looked at."""
        return self.last.weights if self.last.told_by is None else [self.last.told_by]

    def mark(self) -> object:
        """Looks at every weight. Who is in a hurry compares `last` with what is there, and asks where it differs."""
        self.last = self._look(self.last)
        return self.last.mark

    def _look(self, last: Look) -> Look:
        after, hooks = Parameters.last_change, RemovableHandle.next_id  # first: what changes meanwhile is seen later
        found = [weight for layer in self._layers for weight in layer._parameters.values() if weight is not None]
        weights: list[Tensor] = [*found]
        versions = [0 if weight.is_inference() else weight._version for weight in weights]  # they count no changes
        trained = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        is_hooked = any(map(hooked, self._layers))
        state = [*map(id, weights)], versions, trained, is_hooked
        one = len({*versions}) == 1 and versions[0] >= FIRST
        together = one and {weight._cdata for weight in weights} <= self._counted
        told_by = weights[0] if together and not is_hooked else None  # a hook may go without being counted
        mark = last.mark if state == last.state else object()
        return Look(mark, after, hooks, told_by, versions[0] if together else -1, state, weights)


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
