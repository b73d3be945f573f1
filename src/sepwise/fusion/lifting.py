"""Convolutions of an exported program whose weights bear names of their own: those that layers of ours came from."""

from __future__ import annotations

from collections import Counter

from torch import fx, nn

from ..graph.network import Network, Site, stored
from ..graph.rewriting import CONV_CALLS, call_instead, conv_around, given_to


def lift_steps(network: Network) -> None:
    """Turn every call on stored parameters into a layer and a site, named after the weight.

    A program exported from a separable layer reads `layer.depthwise` and `layer.pointwise`, where a stock layer has
    `layer.weight`. A parameter that several nodes read stays where it is.
    """
    graph = network.graph
    reads = Counter(n.target for n in graph.graph.nodes if n.op == "get_attr" for _ in n.users)
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target not in CONV_CALLS:
            continue
        given = given_to(node)
        held = [_parameter(graph, given.get(name)) for name in ("weight", "bias")]
        weight, bias = held
        nodes = [given[name] for name in ("weight", "bias") if given.get(name) is not None]
        if weight is None or len(nodes) != 2 - held.count(None) or any(reads[n.target] > 1 for n in nodes):
            continue
        name = f"{given['weight'].target}_step"
        graph.set_submodule(name, conv_around(weight, bias, CONV_CALLS[node.target], given))
        network.left_out.pop(node.name, None)
        network.sites.append(Site(name, call_instead(graph, node, name, given["input"])))
    graph.graph.eliminate_dead_code()
    network.sites.sort(key=lambda site: site.node)
    graph.recompile()


def _parameter(graph: fx.GraphModule, node: object) -> nn.Parameter | None:
    """What a node reads, if that is a parameter of the graph."""
    value = stored(graph, node.target) if isinstance(node, fx.Node) and node.op == "get_attr" else None
    return value if isinstance(value, nn.Parameter) else None
