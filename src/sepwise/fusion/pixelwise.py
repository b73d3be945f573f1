"""Layers on (N, H, W, C) as layers on (N, C, H, W): linear ones as pointwise convolutions, norms over channels."""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..graph.network import Network, Site, stored
from ..graph.rewriting import calls_of, hooked
from .activation import activations_of

aten: Any = torch.ops.aten
LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
PRODUCTS = (operator.mul, torch.mul)


class ChannelNorm(nn.Module):
    """A layer norm over the channels of each pixel, (N, C, H, W) -> (N, C, H, W).

    weight, bias    (C,), or None
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, weight: Tensor | None, bias: Tensor | None, eps: float) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", weight), ("bias", bias)):
            self.register_parameter(name, None if value is None else nn.Parameter(value.detach().clone()))

    def forward(self, x: Tensor) -> Tensor:
        laid = x.permute(*LAST)
        return F.layer_norm(laid, laid.shape[-1:], self.weight, self.bias, self.eps).permute(*FIRST)


def write_pixelwise(network: Network) -> None:
    """Write what stands between a permutation to (N, H, W, C) and the one back as layers on (N, C, H, W).

    Layer norms over the last axis become `ChannelNorm`, linear layers pointwise convolutions, as do norms over channels
    of classes of their own, by what they do. Modules between them that keep the size of their input, such as the
    response norm of ConvNeXtV2, stay as they are between two permutations, which copy nothing in channels_last. Where
    anything else stands between, nothing is written. A product with stored numbers, one for each channel, goes into
    the convolution before it.
    """
    calls = calls_of(network.graph.graph)
    for node in list(network.graph.graph.nodes):
        nodes = _between(network, node, calls) if node.users else None  # what was written already has none
        if nodes is not None:
            _write(network, node, nodes)
        elif node.op == "call_module" and calls[node.target] == 1:
            norm = _channel_norm(network.graph.get_submodule(str(node.target)), first=True)
            if norm is not None:
                network.graph.set_submodule(str(node.target), norm)
    for node in list(network.graph.graph.nodes):
        _fold_scale(network, node, calls)
    network.graph.graph.eliminate_dead_code()
    network.graph.recompile()


def _order(node: fx.Node) -> tuple[int, ...] | None:
    """The order of axes that a node brings its input into; None when it does anything else."""
    if (node.op, node.target) == ("call_method", "permute") or node.target in (torch.permute, aten.permute.default):
        axes = node.args[1:] if len(node.args) > 2 else node.args[1] if len(node.args) == 2 else ()
        if isinstance(axes, tuple | list) and all(isinstance(axis, int) for axis in axes):
            return tuple(axes)  # type: ignore[arg-type]
    return None


def _between(network: Network, start: fx.Node, calls: Counter[Any]) -> list[fx.Node] | None:
    """The nodes after a permutation to (N, H, W, C), up to and with the one back; None when they are not all known."""
    if _order(start) != LAST:
        return None
    nodes, node, width = [], start, 0
    while len(node.users) == 1:
        node = next(iter(node.users))
        nodes.append(node)
        if _order(node) == FIRST:
            return nodes
        if activations_of(network.graph, node) is not None or _scale_of_last(network, node) is not None:
            continue
        if node.op != "call_module" or calls[node.target] > 1:
            return None
        module = network.graph.get_submodule(str(node.target))
        known = _channel_norm(module, first=False) is not None or _any_layout(module)
        if isinstance(module, nn.Linear) and _is_linear(module):
            width = module.out_features
        elif not known and (not width or len(node.all_input_nodes) != 1 or not _keeps_size(module, width)):
            return None
    return None


def _write(network: Network, start: fx.Node, nodes: list[fx.Node]) -> None:
    for node in nodes[:-1]:
        factor = _scale_of_last(network, node)
        if factor is not None:
            with network.graph.graph.inserting_before(node):
                node.replace_input_with(factor, network.graph.graph.call_method("reshape", (factor, 1, -1, 1, 1)))
        if node.op != "call_module" or activations_of(network.graph, node) is not None:
            continue
        name = str(node.target)
        module = network.graph.get_submodule(name)
        if isinstance(module, nn.Linear) and _is_linear(module):
            conv = nn.Conv2d(module.in_features, module.out_features, 1, bias=module.bias is not None, device="meta")
            conv.weight = nn.Parameter(module.weight.detach()[:, :, None, None])
            conv.bias = module.bias
            network.graph.set_submodule(name, conv.eval())
            network.sites.append(Site(name, node))
        elif (norm := _channel_norm(module, first=False)) is not None:
            network.graph.set_submodule(name, norm)
        elif not _any_layout(module):
            _wrap(network.graph.graph, node)
    for node in (nodes[-1], start):
        node.replace_all_uses_with(node.all_input_nodes[0])
        network.graph.graph.erase_node(node)


def _is_linear(module: nn.Module) -> bool:
    return type(module) is nn.Linear and not hooked(module)


def _wrap(graph: fx.Graph, node: fx.Node) -> None:
    """Let a node that reads (N, H, W, C) stand where (N, C, H, W) is read and answered."""
    value = node.all_input_nodes[0]
    with graph.inserting_before(node):
        node.replace_input_with(value, graph.call_method("permute", (value, *LAST)))
    with graph.inserting_after(node):
        back = graph.call_method("permute", (node, *FIRST))
    node.replace_all_uses_with(back, lambda user: user is not back)


@torch.no_grad()
def _keeps_size(module: nn.Module, channels: int) -> bool:
    """Whether a module is seen to answer (N, H, W, C) of so many channels by as many numbers."""
    held = next(iter(module.parameters()), torch.zeros(1))
    x = torch.randn(2, 3, 4, channels, generator=torch.Generator().manual_seed(0)).to(held)
    try:
        found = module(x)
    except Exception:  # whatever it is, it does not do that
        return False
    return isinstance(found, Tensor) and found.shape == x.shape


def _scale_of_last(network: Network, node: fx.Node) -> fx.Node | None:
    """The stored numbers, one for each entry of the last axis, by which a node multiplies its input."""
    if node.target not in PRODUCTS or len(node.args) != 2 or not isinstance(node.args[1], fx.Node) or node.kwargs:
        return None
    numbers = _constant(network.graph, node.args[1])
    return None if numbers is None or numbers.dim() != 1 else node.args[1]


@torch.no_grad()
def _channel_norm(module: nn.Module, first: bool) -> ChannelNorm | None:
    """The norm over channels that a module is seen to compute: over axis 1 of pictures (`first`), or over the last."""
    weight, bias, eps = (getattr(module, name, None) for name in ("weight", "bias", "eps"))
    shape = getattr(module, "normalized_shape", None)
    if not isinstance(eps, float) or shape is None or len(shape) != 1 or hooked(module) or list(module.children()):
        return None
    held = next(iter(module.parameters()), torch.zeros(1))
    x = torch.randn(2, shape[0], 3, 2, generator=torch.Generator().manual_seed(0)).to(held)
    norm = ChannelNorm(weight, bias, eps)
    try:
        found = module(x) if first else module(x.permute(*LAST)).permute(*FIRST)
    except (RuntimeError, TypeError, ValueError):
        return None
    same = found.shape == x.shape and torch.allclose(found, norm(x), 1e-3, 1e-4)
    return norm.eval() if same else None


@torch.no_grad()
def _any_layout(module: nn.Module) -> bool:
    """Whether a module without weights or parts is seen to do the same to numbers wherever they lie."""
    if module.training or any(True for _ in (*module.parameters(), *module.buffers(), *module.children())):
        return False
    x = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    try:
        found, laid = module(x.clone()), module(x.permute(*LAST).clone())
    except Exception:  # whatever it is, it does not do that
        return False
    return not hooked(module) and isinstance(found, Tensor) and torch.equal(found.permute(*LAST), laid)


def _fold_scale(network: Network, node: fx.Node, calls: Counter[Any]) -> None:
    """Put a product with stored numbers, one for each channel, into the convolution before it."""
    if not (node.op == "call_method" and node.target == "mul") and node.target not in (*PRODUCTS, aten.mul.Tensor):
        return
    if len(node.args) != 2 or not all(isinstance(arg, fx.Node) for arg in node.args) or node.kwargs:
        return
    scaled, factor = node.args
    assert isinstance(scaled, fx.Node)
    assert isinstance(factor, fx.Node)
    value = scaled
    while value.op == "call_module" and len(value.users) == 1 and activations_of(network.graph, value) == []:
        value = value.all_input_nodes[0]
    site = network.site(str(value.target)) if value.op == "call_module" and calls[value.target] == 1 else None
    if site is None or len(value.users) != 1:
        return
    conv = network.conv(site)
    numbers = _constant(network.graph, factor)
    if numbers is None or tuple(numbers.shape) != (1, conv.out_channels, *[1] * (conv.weight.dim() - 2)):
        return
    scale = numbers.detach().double().flatten()
    weight = conv.weight.detach().double() * scale.view(-1, *[1] * (conv.weight.dim() - 1))
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype))
    if conv.bias is not None:
        conv.bias = nn.Parameter((conv.bias.detach().double() * scale).to(conv.weight.dtype))
    node.replace_all_uses_with(scaled)


def _constant(graph: fx.GraphModule, node: fx.Node) -> Tensor | None:
    """What a node computes from stored numbers alone, by reshaping; None when it does anything else."""
    if node.op == "get_attr":
        found = stored(graph, node.target)
        return found if isinstance(found, Tensor) else None
    reshapes = (torch.reshape, aten.reshape.default, aten.view.default)
    if node.target in reshapes or (node.op == "call_method" and node.target in ("reshape", "view")):
        inner = _constant(graph, node.args[0]) if isinstance(node.args[0], fx.Node) else None
        size = node.args[1:] if isinstance(node.args[1], int) else node.args[1]
        plain = isinstance(size, tuple | list) and all(isinstance(n, int) for n in size)
        return inner.reshape(size) if inner is not None and plain else None  # type: ignore[arg-type]
    return None
