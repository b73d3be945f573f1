"""Factored layers of a graph written as the convolutions that they are chains of, each of which can be fused."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from ..graph.network import Network
from ..graph.rewriting import calls_of, hooked
from ..nn import CPConv1d, CPConv2d, FactoredConv
from ..nn.dense import CONV
from .pair import Pair


def open_layers(network: Network) -> None:
    """Write each factored layer of the graph as its steps, by the names of their weights.

    A CP layer of one or two dimensions becomes a pointwise convolution and a separable layer. Others of two dimensions
    become stock convolutions. They stay as they are where the graph calls them more than once, where they carry hooks,
    compute their weights or have a forward of their own (as depthwise-pointwise pairs do), have groups, or pads that
    depend on the size or differ at two sides.
    """
    graph = network.graph
    calls = calls_of(graph.graph)
    for node in list(graph.graph.nodes):
        name = str(node.target)
        layer = graph.get_submodule(name) if node.op == "call_module" else None
        if not isinstance(layer, FactoredConv) or type(layer).forward is not FactoredConv.forward:
            continue
        if layer.conv.groups > 1 or calls[node.target] > 1 or hooked(layer) or is_parametrized(layer):
            continue
        parts = _parts(layer)
        if parts is None:
            continue
        graph.set_submodule(name, parts)
        (value,) = node.all_input_nodes
        with graph.graph.inserting_before(node):
            for part, _ in parts.named_children():
                value = graph.graph.call_module(f"{name}.{part}", (value,))
        node.replace_all_uses_with(value)
        graph.graph.erase_node(node)
    graph.recompile()


def _parts(layer: FactoredConv) -> nn.Module | None:
    """The layers that it is a chain of, as children in their order; None where it stays as it is."""
    parts = nn.Module()
    if isinstance(layer, CPConv1d | CPConv2d):
        into, depthwise, out = layer.weights
        parts.pointwise_in = CONV[layer.ndim](into.shape[1], into.shape[0], 1, bias=False, device="meta").eval()
        parts.pointwise_in.weight = into
        geometry = layer.conv.geometry
        parts.pair = Pair(geometry, depthwise, None, out, layer.bias, padding_mode=layer.padding_mode).layer()
        return parts
    if layer.ndim != 2:
        return None
    for step in layer.steps:
        geometry = step.geometry
        if geometry.padding == "same" or any(low != high for low, high in geometry.padding):
            return None
        conv = nn.Conv2d(
            step.in_channels,
            step.out_channels,
            geometry.kernel,  # type: ignore[arg-type]
            geometry.stride,  # type: ignore[arg-type]
            tuple(low for low, _ in geometry.padding),  # type: ignore[arg-type]
            geometry.dilation,  # type: ignore[arg-type]
            step.groups,
            bias=False,
            padding_mode=layer.padding_mode,  # type: ignore[arg-type]
            device="meta",
        ).eval()
        conv.weight = getattr(layer, step.name)
        parts.add_module(step.name, conv)
    conv.bias = layer.bias
    return parts
