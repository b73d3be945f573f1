"""Layer scale, however it is written, as a product of a value with stored numbers, one for each channel."""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx, nn

from ..graph.network import Network, stored
from ..graph.rewriting import calls_of, hooked


def write_scales(network: Network) -> None:
    """Write `numbers * x` as `x * numbers`, and modules that multiply each channel by a number of theirs as well.

    Other products stay as they are: sizes may be among them, which have to stay integers.
    """
    graph = network.graph.graph
    calls = calls_of(graph)
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is operator.mul and not node.kwargs:
            first, second = node.args
            if isinstance(first, fx.Node) and isinstance(second, fx.Node) and _is_stored(network, first):
                node.args = (second, first)
        if node.op != "call_module" or calls[node.target] > 1 or len(node.args) != 1 or node.kwargs:
            continue
        name = _scaling_parameter(network.graph.get_submodule(str(node.target)))
        if name is not None:
            with graph.inserting_before(node):
                numbers = graph.call_function(torch.reshape, (graph.get_attr(f"{node.target}.{name}"), (1, -1, 1, 1)))
                scaled = graph.call_function(operator.mul, (node.args[0], numbers))
            node.replace_all_uses_with(scaled)
            graph.erase_node(node)
    network.graph.recompile()


def _is_stored(network: Network, node: fx.Node) -> bool:
    return node.op == "get_attr" and isinstance(stored(network.graph, node.target), Tensor)


@torch.no_grad()
def _scaling_parameter(module: nn.Module) -> str | None:
    """The name of the one parameter by which a module is seen to multiply the channels of (N, C, H, W)."""
    held = dict(module.named_parameters())
    if len(held) != 1 or list(module.buffers()) or hooked(module):
        return None
    (name, numbers), *_ = held.items()
    if numbers.dim() != 1:
        return None
    x = torch.randn(2, len(numbers), 3, 2, generator=torch.Generator().manual_seed(0)).to(numbers)
    try:
        found = module(x.clone())
    except Exception:  # whatever it is, it does not do that
        return None
    same = isinstance(found, Tensor) and found.shape == x.shape
    return name if same and torch.equal(found, x * numbers.view(1, -1, 1, 1)) else None
