"""Two versions of a network run side by side over all calibration pictures, from one convertible layer to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from ..errors import ModelError
from ..graph.network import Network, Site, sentence, stored
from .shelf import MEMORY, Shelf

Values = dict[fx.Node, Any]


@dataclass(frozen=True)
class Twin:
    """One value in the dense network and in the converted one; the same object until they differ."""

    dense: Any
    converted: Any


@dataclass(frozen=True)
class Visit:
    """What is known when the walk reaches a convertible convolution.

    site       the convolution
    inputs     what the converted network feeds it, one tensor (N, C, *size) for each batch
    outputs    what the dense layer answers to what the dense network feeds it, one tensor for each batch
    values     dense values of the first batch that this layer or later nodes need: `rest_of` starts from them
    """

    site: Site
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    values: Values


@torch.no_grad()
def walk(
    network: Network, batches: Sequence[Tensor], visit: Callable[[Visit], nn.Module | None], memory: int = MEMORY
) -> list[Twin]:
    """Run the graph over the batches; at each convertible convolution `visit` may return the layer that replaces it.

    Between two such layers each batch runs on its own and a value is dropped after its last use. What is held for all
    batches is what a layer reads and answers, and what later layers will read: in memory up to `memory` bytes and in
    temporary files beyond.
    returns    the network's outputs, a Twin for each batch
    Raises ModelError when the network cannot run on the batches.
    """
    with out_of_place_modules(network.graph):
        return _walk(network, batches, visit, Shelf(memory))


def _walk(
    network: Network, batches: Sequence[Tensor], visit: Callable[[Visit], nn.Module | None], shelf: Shelf
) -> list[Twin]:
    sites = {site.node: site for site in network.sites}
    done_after = _last_uses(network.graph)
    values: list[dict[fx.Node, Twin]] = [_inputs(network.graph, batch) for batch in batches]
    for between, node in _stretches(network.graph, sites):
        for held in values:
            for inner in between:
                held[inner] = _both(network, inner, held)
                for done in done_after.get(inner, ()):
                    held.pop(done, None)
            for inner in between:
                if inner in held:
                    held[inner] = _shelved(shelf, held[inner])
        if node.op == "output":
            return [_both(network, node, held) for held in values]
        _at_site(network, sites[node], values, visit, shelf, done_after.get(node, []))
    raise ModelError("the graph of the model has no output")


def _at_site(
    network: Network,
    site: Site,
    values: list[dict[fx.Node, Twin]],
    visit: Callable[[Visit], nn.Module | None],
    shelf: Shelf,
    done: Sequence[fx.Node],
) -> None:
    """Show the layer to `visit` and carry both versions past it; `done` are read here for the last time."""
    dense, source = network.conv(site), site.node.all_input_nodes[0]
    inputs: list[Tensor] = []
    answers: list[Tensor] = []
    same: list[bool] = []
    for held in values:
        twin = held[source]
        same.append(twin.converted is twin.dense)
        inputs.append(twin.converted)
        answers.append(shelf.put(_run(dense, twin.dense, node=site.node)))
        if source in done and held is not values[0]:
            del held[source]
    layer = visit(Visit(site, inputs, answers, {n: twin.dense for n, twin in values[0].items()}))
    if layer is not None:
        network.replace(site.name, layer)
    for held, unchanged, answer in zip(values, same, answers, strict=True):
        x = inputs.pop(0)  # nothing else holds it, where it is done: there is room for the answer
        kept = layer is None and unchanged
        held[site.node] = Twin(answer, answer if kept else shelf.put((layer or dense)(x)))
        for node in done:
            held.pop(node, None)


@torch.no_grad()
def rest_of(network: Network, node: fx.Node, value: Any, values: Values) -> Any:
    """The network's output when `node` takes `value`; `values` as in the Visit at that node."""
    given = {**values, node: value}
    known = dict(given)
    started = False
    for later in network.graph.graph.nodes:
        if later is node:
            started = True
            continue
        if not started or later in known:
            continue
        args, kwargs = map_arg((later.args, later.kwargs), lambda n: known[n])
        if later.op == "output":
            return args[0]
        if later.op == "call_module" and any(n in given for n in later.all_input_nodes):
            args, kwargs = pytree.tree_map_only(Tensor, Tensor.clone, (args, kwargs))  # a module may write into them
        known[later] = call(network.graph, later, args, kwargs)
    raise ModelError("the graph of the model has no output")


def call(graph: fx.GraphModule, node: fx.Node, args: Any, kwargs: Any) -> Any:
    """Compute one node of a graph from its arguments."""
    if node.op == "get_attr":
        return stored(graph, node.target)
    if node.op == "call_module":
        return graph.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def outputs_of(value: Any) -> list[Tensor]:
    """The floating-point tensors in a network's output, whatever holds them."""
    return [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor) and t.is_floating_point()]


@contextmanager
def out_of_place_modules(graph: fx.GraphModule) -> Iterator[None]:
    """Values are shared between two networks here, so modules must not write into their inputs meanwhile."""
    writers = [m for m in graph.modules() if getattr(m, "inplace", False) is True]
    for module in writers:
        module.inplace = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in writers:
            module.inplace = True  # type: ignore[assignment]


def _both(network: Network, node: fx.Node, held: dict[fx.Node, Twin]) -> Twin:
    def compute(args: Any, kwargs: Any) -> Any:
        return args[0] if node.op == "output" else call(network.graph, node, args, kwargs)

    args, kwargs = map_arg((node.args, node.kwargs), lambda n: held[n].dense)
    dense = _run(compute, args, kwargs, node=node)
    if all(held[n].dense is held[n].converted for n in node.all_input_nodes):
        return Twin(dense, dense)
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: held[n].converted)
    return Twin(dense, compute(args, kwargs))


def _shelved(shelf: Shelf, twin: Twin) -> Twin:
    dense = shelf.put(twin.dense)
    return Twin(dense, dense if twin.converted is twin.dense else shelf.put(twin.converted))


def _run(compute: Any, *args: Any, node: fx.Node | None = None) -> Any:
    try:
        return compute(*args)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"the model cannot run on these pictures: {sentence(error)} (at {node.name if node else 'a layer'})"
        ) from error


def _inputs(graph: fx.GraphModule, pictures: Tensor) -> dict[fx.Node, Twin]:
    """The pictures for the first argument of the model; the default for all others."""
    held: dict[fx.Node, Twin] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            if held and not node.args:
                raise ModelError(
                    f"the model takes more than one input ({node.target}); conversion feeds it pictures only"
                )
            given = node.args[0] if held else pictures
            held[node] = Twin(given, given)
    return held


def _stretches(graph: fx.GraphModule, sites: dict[fx.Node, Site]) -> Iterator[tuple[list[fx.Node], fx.Node]]:
    """The nodes up to each convertible convolution, or to the output, and that node itself."""
    between: list[fx.Node] = []
    for node in graph.graph.nodes:
        if node in sites or node.op == "output":
            yield between, node
            between = []
        elif node.op != "placeholder":
            between.append(node)


def _last_uses(graph: fx.GraphModule) -> dict[fx.Node, list[fx.Node]]:
    last: dict[fx.Node, fx.Node] = {}
    for node in graph.graph.nodes:
        for used in node.all_input_nodes:
            last[used] = node
    uses: dict[fx.Node, list[fx.Node]] = {}
    for used, node in last.items():
        uses.setdefault(node, []).append(used)
    return uses
