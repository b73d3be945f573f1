"""Chains of a graph that are one separable convolution: depthwise, activation, pointwise, activation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ..geometry import Pads
from ..graph.network import FUNCTIONAL, NORMS, Network
from ..graph.rewriting import CONV_CALLS, CONVS, calls_of, hooked
from ..graph.same_padding import geometry_of
from ..nn import FactoredConv, SeparableConv1d, SeparableConv2d
from ..nn.dense import shape_of_dense
from ..nn.fused import described
from .activation import activations_of
from .pair import Pair, why_not_pair
from .pixelwise import ChannelNorm

aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Chain:
    """Nodes that one layer can replace.

    name     of the depthwise convolution, or of the separable layer that begins it
    nodes    in the order in which they run; the first reads what the layer will read, the last is what it will answer
    """

    name: str
    nodes: tuple[fx.Node, ...]
    pair: Pair

    @property
    def description(self) -> str:
        """ "depthwise 3x3, relu6, pointwise 32 to 64": what the layer computes."""
        pair, geometry = self.pair, self.pair.geometry
        channels = pair.depthwise.shape[0] // pair.multiplier
        words = [described(geometry, pair.multiplier), pair.between, None if pair.epsilon is None else "normalize"]
        words += [f"pointwise {channels} to {pair.pointwise.shape[0]}", pair.activation]
        return ", ".join(word for word in words if word)


def find_chains(network: Network) -> tuple[list[Chain], dict[str, str]]:
    """Every chain of the graph, in order; and for every other candidate, by name, the reason why it is none.

    Candidates are depthwise convolutions, and separable layers of any kind. Normalizations are expected to be folded.
    """
    chains: list[Chain] = []
    left: dict[str, str] = {}
    for node, name, candidate in _candidates(network):
        found = _chain_at(network, node, name, candidate)
        if isinstance(found, str):
            left[name] = found
        else:
            chains.append(found)
    return chains, left


def _candidates(network: Network) -> Iterator[tuple[fx.Node, str, nn.Module | str]]:
    """Nodes with a name and the module they call, or the reason why it cannot be looked at."""
    for node in network.graph.graph.nodes:
        if node.op == "call_module":
            module = network.graph.get_submodule(str(node.target))
            if isinstance(module, FactoredConv) or _is_depthwise(module):
                yield node, str(node.target), module
        elif node.op == "call_function" and (node.target in FUNCTIONAL or node.target in CONV_CALLS):
            groups = node.kwargs.get("groups", node.args[6] if len(node.args) > 6 else 1)
            if groups != 1:
                yield node, node.name, "its weight is not that of a plain convolution layer"


def _chain_at(network: Network, node: fx.Node, name: str, candidate: nn.Module | str) -> Chain | str:
    if isinstance(candidate, str):
        return candidate
    nodes = [node]
    if isinstance(candidate, FactoredConv):
        reason = why_not_pair(candidate) or _called_often(network, node)
        if reason:
            return reason
        assert isinstance(candidate, SeparableConv1d | SeparableConv2d)
        pair = Pair.of_layer(candidate)
    else:
        assert isinstance(candidate, CONVS)
        geometry = geometry_of(network, name, candidate)
        if isinstance(geometry, str):
            return geometry
        found = "it has three dimensions" if isinstance(candidate, nn.Conv3d) else _pointwise_after(network, node)
        if isinstance(found, str):
            return found
        between, names, norm, pointwise = found
        nodes += [*between, pointwise]
        pair = Pair.of_convolutions(candidate, geometry, network.graph.get_submodule(str(pointwise.target)))  # type: ignore[arg-type]
        pair = replace(pair, between=names[0] if names else None)
        if norm is not None:
            pair = pair.normalized(norm.weight, norm.bias, norm.eps)
    if pair.activation is None:
        after, names, _ = activations_after(network, nodes[-1], 1)
        nodes += after if names else []
        pair = replace(pair, activation=names[0] if names else None)
    before = node.all_input_nodes[0]
    pads = _zero_pads(network.graph, before, pair.geometry.axes) if len(before.users) == 1 else None
    if pads and pair.padding_mode == "zeros" and pair.geometry.padding != "same":
        nodes, pair = [before, *nodes], pair.padded(pads)
    return Chain(name, tuple(nodes), pair)


def _pointwise_after(
    network: Network, node: fx.Node
) -> tuple[list[fx.Node], list[str], ChannelNorm | None, fx.Node] | str:
    """Nodes between a depthwise convolution and the pointwise one after it, their activation and norm, the latter."""
    between, names, last = activations_after(network, node, 1)
    norm = _norm_after(network, last)
    if norm is not None:
        last = next(iter(last.users))
        more, _, end = activations_after(network, last, 0)
        between, last = [*between, last, *more], end
    if len(last.users) != 1:
        readers = ", ".join(_words(network, user) for user in last.users)
        return f"its output is read {len(last.users)} times ({readers}), so it must exist"
    follower = next(iter(last.users))
    what = _words(network, follower)
    module = network.graph.get_submodule(str(follower.target)) if follower.op == "call_module" else None
    if isinstance(module, NORMS):
        return f"{what} follows, which could not be folded into a convolution"
    if not isinstance(module, CONVS):
        return f"{what} follows, not a pointwise convolution"
    reason = network.left_out.get(str(follower.target))
    if reason:
        return f"{what} follows, and {reason}"
    conv = shape_of_dense(module)
    if max(conv.geometry.kernel) > 1:
        return f"{what} follows, with a kernel of {'x'.join(map(str, conv.geometry.kernel))}; a pointwise one has 1x1"
    if conv.groups > 1:
        return f"{what} follows in {conv.groups} groups; one operation mixes all channels"
    if max(conv.geometry.stride) > 1 or max(map(max, conv.geometry.pads((1,) * conv.geometry.axes))) > 0:
        return f"{what} follows, which strides or pads; one operation does so in its depthwise step"
    if norm is not None and (
        len(conv.geometry.kernel) != 2 or network.graph.get_submodule(str(node.target)).padding_mode != "zeros"
    ):
        return f"{what} follows after a norm, which one operation knows for pictures padded by zeros"
    return between, names, norm, follower


def _norm_after(network: Network, node: fx.Node) -> ChannelNorm | None:
    """The norm over channels that alone reads a node, if that is what does."""
    follower = next(iter(node.users)) if len(node.users) == 1 else None
    if follower is None or follower.op != "call_module" or _called_often(network, follower):
        return None
    module = network.graph.get_submodule(str(follower.target))
    return module if isinstance(module, ChannelNorm) else None


def activations_after(network: Network, node: fx.Node, most: int) -> tuple[list[fx.Node], list[str], fx.Node]:
    """The nodes after `node` that compute at most so many activations, their names, and the last node."""
    nodes: list[fx.Node] = []
    names: list[str] = []
    while len(node.users) == 1:
        follower = next(iter(node.users))
        found = activations_of(network.graph, follower)
        if found is None or len(names) + len(found) > most:
            break
        nodes.append(follower)
        names += found
        node = follower
    return nodes, names, node


def _zero_pads(graph: fx.GraphModule, node: fx.Node, axes: int) -> Pads | None:
    """Pixels (low, high) along each axis, when the node does nothing but pad its input by zeros."""
    flat: Any = None
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        plain = type(module) in (nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d)
        if plain and not hooked(module) and module.value == 0:
            flat = module.padding
    elif node.op == "call_function" and node.target in (F.pad, aten.pad.default, aten.constant_pad_nd.default):
        rest = [v for v in (*node.args[2:], *node.kwargs.values()) if v not in ("constant", None, 0)]
        flat = node.args[1] if len(node.args) > 1 and not rest else None
    if not isinstance(flat, tuple | list) or not all(isinstance(p, int) and p >= 0 for p in flat):
        return None
    pairs = tuple((flat[i], flat[i + 1]) for i in range(len(flat) - 2, -1, -2))  # PyTorch names the last axis first
    return None if len(pairs) > axes else ((0, 0),) * (axes - len(pairs)) + pairs


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, CONVS) and module.groups == module.in_channels > 1


def _called_often(network: Network, node: fx.Node) -> str | None:
    calls = calls_of(network.graph.graph)[node.target]
    return None if calls == 1 else f"it is called {calls} times, each time on other inputs"


def _words(network: Network, node: fx.Node) -> str:
    if node.op == "call_module":
        return f"{type(network.graph.get_submodule(str(node.target))).__name__} {node.target}"
    if node.op == "output":
        return "the output of the network"
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
