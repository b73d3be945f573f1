"""Two versions of a network run side by side, node by node, over all calibration pictures at once."""

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
from .graph import Network, Site, sentence, stored
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
    inputs     one Twin of tensors (N, C, *size) for each batch
    outputs    what the dense layer answers to its dense inputs, one tensor for each batch
    values     dense values that later nodes still need, for the first batch: `rest_of` starts from them
    """

    site: Site
    inputs: Sequence[Twin]
    outputs: Sequence[Tensor]
    values: Values


@torch.no_grad()
def walk(
    network: Network, batches: Sequence[Tensor], visit: Callable[[Visit], nn.Module | None], memory: int = MEMORY
) -> list[Twin]:
    """Run the graph over the batches; at each convertible convolution `visit` may return the layer that replaces it.

    A value is dropped after its last use: what is held are the live activations of all batches, not all layers', in
    memory up to `memory` bytes and in temporary files beyond.
    returns    the network's outputs, a Twin for each batch
    Raises ModelError when the network cannot run on the batches.
    """
    with out_of_place_modules(network.graph):
        return _walk(network, batches, visit, Shelf(memory))


def _walk(
    network: Network, batches: Sequence[Tensor], visit: Callable[[Visit], nn.Module | None], shelf: Shelf
) -> list[Twin]:
    sites = {site.node: site for site in network.sites}
    dense = {node: network.conv(site) for node, site in sites.items()}
    last_use = _last_uses(network.graph)
    values: dict[fx.Node, list[Twin]] = {}
    inputs = iter([batches])
    for node in network.graph.graph.nodes:
        if node.op == "placeholder":
            values[node] = _inputs(node, inputs, len(batches))
        elif node.op == "output":
            return [_both(network, node, values, b, lambda args, _: args[0]) for b in range(len(batches))]
        elif node in sites:
            seen = values[node.all_input_nodes[0]]
            answers = [shelf.put(_run(dense[node], twin.dense, node=node)) for twin in seen]
            still = {n: v[0].dense for n, v in values.items()}
            layer = visit(Visit(sites[node], seen, answers, still))
            if layer is None:
                same = dense[node]
                values[node] = [
                    Twin(y, y if p.converted is p.dense else shelf.put(same(p.converted)))
                    for p, y in zip(seen, answers, strict=True)
                ]
            else:
                network.replace(sites[node].name, layer)
                values[node] = [Twin(y, shelf.put(layer(p.converted))) for p, y in zip(seen, answers, strict=True)]
        else:
            values[node] = [
                _shelved(
                    shelf,
                    _both(
                        network,
                        node,
                        values,
                        b,
                        lambda args, kwargs, node=node: call(network.graph, node, args, kwargs),
                    ),
                )
                for b in range(len(batches))
            ]
        for done in last_use.get(node, ()):
            values.pop(done, None)
    raise ModelError("the graph of the model has no output")


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


def _both(network: Network, node: fx.Node, values: dict[fx.Node, list[Twin]], batch: int, compute: Any) -> Twin:
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: values[n][batch].dense)
    dense = _run(compute, args, kwargs, node=node)
    if all(values[n][batch].dense is values[n][batch].converted for n in node.all_input_nodes):
        return Twin(dense, dense)
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: values[n][batch].converted)
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


def _inputs(node: fx.Node, unread: Iterator[Sequence[Tensor]], batches: int) -> list[Twin]:
    """The pictures for the first argument of the model; the default for all others."""
    pictures = next(unread, None)
    if pictures is not None:
        return [Twin(b, b) for b in pictures]
    if not node.args:
        raise ModelError(f"the model takes more than one input ({node.target}); conversion feeds it pictures only")
    return [Twin(node.args[0], node.args[0])] * batches


def _last_uses(graph: fx.GraphModule) -> dict[fx.Node, list[fx.Node]]:
    last: dict[fx.Node, fx.Node] = {}
    for node in graph.graph.nodes:
        for used in node.all_input_nodes:
            last[used] = node
    uses: dict[fx.Node, list[fx.Node]] = {}
    for used, node in last.items():
        uses.setdefault(node, []).append(used)
    return uses
