"""What stands around the chains of a graph: pointwise steps before and after them, and sums with a shortcut."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..geometry import Geometry
from ..graph.network import Network
from ..graph.same_padding import geometry_of
from ..nn import FusedBlock
from .activation import activations_of
from .chains import Chain, activations_after
from .pair import finite

aten: Any = torch.ops.aten
SUMS = (operator.add, torch.add, aten.add.Tensor)
Size = tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Nodes that one layer can replace.

    name        of the depthwise convolution, of the separable layer, or of the lone convolution
    nodes       in the order in which they run; the last is what the layer will answer
    inputs      what the layer will read: x, and the residual where there is one
    layer       that will replace them
    says        what it computes
    depthwise   whether that holds a depthwise step
    """

    name: str
    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    layer: nn.Module
    says: str
    depthwise: bool


def find_blocks(network: Network, chains: Sequence[Chain], sizes: Mapping[fx.Node, Size]) -> list[Block]:
    """Every chain with all that can be computed along with it, then every lone convolution likewise.

    sizes    of the values of the graph, where they are known: a residual must have the size of what it is added to
    """
    blocks, taken = [], set[fx.Node]()
    for chain in chains:
        block = _around(network, chain, sizes, taken)
        taken.update(block.nodes)
        blocks.append(block)
    for node in network.graph.graph.nodes:
        found = None if node in taken else _conv_at(network, node)
        if found is not None:
            conv, geometry = found
            weights = {"pointwise": conv.weight, "bias": conv.bias}
            geometry = None if _is_pointwise(geometry) else geometry
            start = _Part((node,), node.all_input_nodes[0], weights, geometry)
            part = _with_end(network, start, sizes, taken)
            taken.update(part.nodes)
            blocks.append(_block(str(node.target), part, depthwise=False))
    blocks += _earlier(network)
    order = {node: i for i, node in enumerate(network.graph.graph.nodes)}
    return sorted(blocks, key=lambda block: order[block.nodes[-1]])


@dataclass(frozen=True)
class _Part:
    """A block on the way: its nodes, what they read, and the arguments of its layer."""

    nodes: tuple[fx.Node, ...]
    source: fx.Node
    weights: dict[str, Tensor | None]
    geometry: Geometry | None = None
    multiplier: int = 1
    widening: str | None = None
    between: str | None = None
    activation: str | None = None
    epsilon: float | None = None
    residual: fx.Node | None = None


def _around(network: Network, chain: Chain, sizes: Mapping[fx.Node, Size], taken: set[fx.Node]) -> Block:
    pair, source = chain.pair, chain.nodes[0].all_input_nodes[0]
    plain = Block(chain.name, chain.nodes, (source,), nn.Identity(), chain.description, depthwise=True)
    if pair.geometry.axes != 2 or pair.padding_mode != "zeros":
        return replace(plain, layer=pair.layer())
    weights = {name: getattr(pair, name) for name in ("depthwise", "depthwise_bias", "pointwise", "bias")}
    part = _Part(
        chain.nodes,
        source,
        weights,
        pair.geometry,
        pair.multiplier,
        between=pair.between,
        activation=pair.activation,
        epsilon=pair.epsilon,
    )
    part = _with_start(network, part, taken)
    part = _with_end(network, part, sizes, taken)
    if part.nodes == chain.nodes and pair.epsilon is None:
        return replace(plain, layer=pair.layer())
    return _block(chain.name, part, depthwise=True)


def _block(name: str, part: _Part, depthwise: bool) -> Block:
    layer = FusedBlock(
        {key: finite(value) for key, value in part.weights.items()},
        part.geometry,
        widening=part.widening,
        between=part.between,
        activation=part.activation,
        epsilon=part.epsilon,
        multiplier=part.multiplier,
        adds=part.residual is not None,
    ).eval()
    inputs = (part.source,) if part.residual is None else (part.source, part.residual)
    return Block(name, part.nodes, inputs, layer, layer.extra_repr(), depthwise)


def _with_start(network: Network, part: _Part, taken: set[fx.Node]) -> _Part:
    """The pointwise convolution and the activation that nothing but the depthwise step reads."""
    nodes: list[fx.Node] = []
    names: list[str] = []
    node = part.source
    while len(node.users) == 1 and (found := activations_of(network.graph, node)) is not None and node not in taken:
        if len(names) + len(found) > 1:
            return part
        nodes.insert(0, node)
        names = found or names
        node = node.all_input_nodes[0]
    found = _conv_at(network, node)
    if found is None or not _is_pointwise(found[1]) or len(node.users) != 1 or node in taken:
        return part
    conv = found[0]
    weights = part.weights | {"expand": conv.weight, "expand_bias": conv.bias}
    nodes = [node, *nodes, *part.nodes]
    return replace(
        part, nodes=tuple(nodes), source=node.all_input_nodes[0], weights=weights, widening=names[0] if names else None
    )


def _with_end(network: Network, part: _Part, sizes: Mapping[fx.Node, Size], taken: set[fx.Node]) -> _Part:
    """The sum with a value of the same size, and the activation after it; or that activation alone."""
    nothing, _, last = activations_after(network, part.nodes[-1], 0)
    if part.activation is None and len(last.users) == 1:
        follower = next(iter(last.users))
        other = _addend(follower, last)
        if other is not None and follower not in taken and sizes.get(other) == sizes.get(last) is not None:
            part = replace(part, nodes=(*part.nodes, *nothing, follower), residual=other)
    if part.activation is None:
        after, names, _ = activations_after(network, part.nodes[-1], 1)
        if names and not taken.intersection(after):
            part = replace(part, nodes=(*part.nodes, *after), activation=names[0])
    return part


def _addend(node: fx.Node, one: fx.Node) -> fx.Node | None:
    """The other value of a plain sum of two; None when the node is anything else."""
    method = node.op == "call_method" and node.target == "add"
    if not (method or (node.op == "call_function" and node.target in SUMS)) or node.kwargs or len(node.args) != 2:
        return None
    others = [arg for arg in node.args if arg is not one]
    return others[0] if len(others) == 1 and isinstance(others[0], fx.Node) else None


def _conv_at(network: Network, node: fx.Node) -> tuple[nn.Conv2d, Geometry] | None:
    """The convolution of one group that a node calls, and that can be replaced; None when it calls anything else."""
    conv = network.graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    if not isinstance(conv, nn.Conv2d) or conv.groups > 1:
        return None
    geometry = geometry_of(network, str(node.target), conv)
    return None if isinstance(geometry, str) or conv.padding_mode != "zeros" else (conv, geometry)


def _is_pointwise(geometry: Geometry) -> bool:
    return max(*geometry.kernel, *geometry.stride) == 1 and max(map(max, geometry.pads((1, 1)))) == 0


def _earlier(network: Network) -> Iterator[Block]:
    """The layers that are blocks already, of a network that was fused before: each stands for itself."""
    for node in network.graph.graph.nodes:
        layer = network.graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, FusedBlock):
            inputs = tuple(arg for arg in node.args if isinstance(arg, fx.Node))
            yield Block(str(node.target), (node,), inputs, layer, layer.extra_repr(), layer.depthwise is not None)


@torch.no_grad()
def sizes_of(graph: fx.GraphModule, example: Tensor) -> dict[fx.Node, Size]:
    """The sizes of all tensors that the nodes of a graph compute from an example."""
    found: dict[fx.Node, Size] = {}

    class Noting(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor):
                found[n] = tuple(value.shape)
            return value

    Noting(graph).run(example)
    return found
