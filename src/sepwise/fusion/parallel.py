"""Convolutions that read the same value and are added up, as one: what RepVGG and MobileOne are trained with."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..geometry import Geometry
from ..graph.fold import scale_shift_of, what_stays
from ..graph.network import Network, Site
from ..graph.rewriting import CONVS, calls_of
from ..nn.dense import CONV, DenseConv, shape_of_dense
from .activation import activations_of
from .blocks import SUMS


@dataclass(frozen=True)
class _Branch:
    """One summand: a convolution, or what scales and shifts each channel (a normalization, or the value itself).

    name    of the layer; "" for the value itself
    """

    name: str = ""
    conv: DenseConv | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None


def merge_parallel(network: Network) -> dict[str, list[str]]:
    """Write sums of convolutions that read one value, and of that value itself, as one convolution each.

        y = w1 * x + w2 * x + scale x + x + rest = (w1 + w2 + scale + 1) * x + rest

    Their kernels are laid over each other as they lie on the input. Strides, groups and dilations must agree, and the
    kernel around all of them must not have more numbers than they have together.

    returns    name of the convolution that is left -> the convolutions and normalizations that it stands for besides
    """
    merged: dict[str, list[str]] = {}
    graph = network.graph.graph
    calls = calls_of(graph)
    inner: set[fx.Node] = set()
    for node in reversed(list(graph.nodes)):  # the last sum first: it takes in those that it adds up
        terms = [] if node in inner else _terms(network, node, inner)
        if len(terms) == 1:  # the others are zeros
            node.replace_all_uses_with(terms[0])
        left = terms
        for source, group in _by_source(network, terms, calls).items():
            layer = _one_layer(list(group.values()))
            if layer is None:
                continue
            kernels = {branch.name: prod(branch.conv.kernel_size) for branch in group.values() if branch.conv}
            name = max(kernels, key=kernels.__getitem__)
            others = [branch.name for branch in group.values() if branch.name not in ("", name)]
            with graph.inserting_before(node):
                call = graph.call_module(name, (source,))
            left = [call, *(term for term in left if term not in group)]
            network.graph.set_submodule(name, layer)
            network.sites = [site for site in network.sites if site.name not in (name, *others)] + [Site(name, call)]
            merged[name] = others
        if left is not terms:
            with graph.inserting_before(node):
                node.replace_all_uses_with(reduce(lambda a, b: graph.call_function(operator.add, (a, b)), left))
    graph.eliminate_dead_code()
    network.sites.sort(key=lambda site: site.node)
    network.graph.recompile()
    return dict(reversed(merged.items()))


def _terms(network: Network, node: fx.Node, inner: set[fx.Node]) -> list[Any]:
    """What a sum adds up, but for zeros; sums that only it reads (noted in `inner`) taken apart. [] for other nodes."""
    method = node.op == "call_method" and node.target == "add"
    if not (method or (node.op == "call_function" and node.target in SUMS)) or node.kwargs or len(node.args) != 2:
        return []
    found: list[Any] = []
    for term in node.args:
        below = _below(network, term) if isinstance(term, fx.Node) else None
        parts = _terms(network, below, inner) if below is not None and len(below.users) == 1 else []
        if parts and below is not None:
            inner.add(below)
        found += parts or [term]
    return [term for term in found if isinstance(term, fx.Node) or term != 0]


def _below(network: Network, node: fx.Node) -> fx.Node:
    """The node that this one hands on as it is; itself when it does anything."""
    while len(node.users) == 1 and activations_of(network.graph, node) == []:
        node = node.all_input_nodes[0]
    return node


def _by_source(
    network: Network, terms: Sequence[Any], calls: Mapping[Any, int]
) -> dict[fx.Node, dict[fx.Node, _Branch]]:
    """The value read -> what the sum reads -> its branch, for values that a convolution and another branch read."""
    found: dict[fx.Node, dict[fx.Node, _Branch]] = {}
    for term in terms:
        read = _branch_at(network, _below(network, term), calls) if isinstance(term, fx.Node) else None
        if read is not None:
            found.setdefault(read[0], {})[term] = read[1]
    for source, group in found.items():
        if terms.count(source) == 1:
            group[source] = _Branch()
    return {s: g for s, g in found.items() if len(g) > 1 and any(branch.conv is not None for branch in g.values())}


def _branch_at(network: Network, node: fx.Node, calls: Mapping[Any, int]) -> tuple[fx.Node, _Branch] | None:
    """What a branch reads, and the branch: a convolution or a normalization that nothing else reads; or None."""
    if node.op != "call_module" or len(node.users) != 1 or calls[node.target] > 1:
        return None
    name, source = str(node.target), node.all_input_nodes[0]
    module = network.graph.get_submodule(name)
    if isinstance(module, CONVS):
        site = network.site(name)
        return (source, _Branch(name, module)) if site is not None and module.padding_mode == "zeros" else None
    found, stays = scale_shift_of(module), what_stays(module)
    if found is None or stays is None:
        return None
    nothing = all(isinstance(part, nn.Identity | nn.Sequential) for part in stays.modules())
    return (source, _Branch(name, None, *found)) if nothing else None


@torch.no_grad()
def _one_layer(branches: Sequence[_Branch]) -> DenseConv | None:
    """The convolution that all branches are together; None where there is none, or it would take more numbers."""
    convs = [branch.conv for branch in branches if branch.conv is not None]
    first = shape_of_dense(convs[0])
    if any(b.conv is None for b in branches) and first.in_channels != first.out_channels:
        return None
    inside, axes = first.in_channels // first.groups, first.geometry.axes
    parts = [_kernel(branch, first.out_channels, inside, axes) for branch in branches]
    together = _around([geometry for _, _, geometry in parts])
    alike = {(conv.out_channels, conv.groups) for conv in convs}
    if len(alike) > 1 or together is None:
        return None
    assert together.padding != "same"
    weight = torch.zeros(first.out_channels, inside, *together.kernel, dtype=torch.float64)
    bias = torch.zeros(first.out_channels, dtype=torch.float64)
    for values, shift, geometry in parts:
        assert geometry.padding != "same"
        ends = zip(together.padding, geometry.padding, together.dilation, geometry.kernel, strict=True)
        where = [slice((low - own) // d, (low - own) // d + k) for (low, _), (own, _), d, k in ends]
        weight[(slice(None), slice(None), *where)] += values
        bias += shift
    kind: Any = CONV[axes]
    pads = tuple(low for low, _ in together.padding)
    channels = (first.in_channels, first.out_channels)
    layer = kind(
        *channels, together.kernel, together.stride, pads, together.dilation, groups=first.groups, device="meta"
    )
    layer.weight, layer.bias = (nn.Parameter(values.to(convs[0].weight)) for values in (weight, bias))
    return layer.eval()


def _kernel(branch: _Branch, out: int, inside: int, axes: int) -> tuple[Tensor, Tensor, Geometry]:
    """A branch as weight (out, inside, *kernel) and bias (out,), float64 on the CPU, and where the kernel is laid."""
    if branch.conv is not None:
        weight, bias = branch.conv.weight, branch.conv.bias
        shift = torch.zeros(out, dtype=torch.float64) if bias is None else bias.double().cpu()
        return weight.double().cpu(), shift, shape_of_dense(branch.conv).geometry
    one = torch.ones(out, dtype=torch.float64)
    weight, outputs = torch.zeros(out, inside, *(1,) * axes, dtype=torch.float64), torch.arange(out)
    weight[outputs, outputs % inside] = (one if branch.scale is None else branch.scale.cpu()).view(-1, *(1,) * axes)
    return weight, 0 * one if branch.shift is None else branch.shift.cpu(), Geometry.of((1,) * axes)


def _around(geometries: Sequence[Geometry]) -> Geometry | None:
    """The kernel around several that are laid on one input; None where there is none, or it is larger than all of them.

    Along an axis a kernel reaches from -low to extent - 1 - low, and its output is low + high - extent + 1 larger than
    the input: where all agree in that and pad both ends alike, so does the kernel around them.
    """
    pads = [g.padding for g in geometries if g.padding != "same"]
    if len({g.stride for g in geometries}) > 1 or len(pads) < len(geometries):
        return None
    axes = []
    for axis in range(geometries[0].axes):
        laid = [(g.kernel[axis], *pad[axis], g.dilation[axis]) for g, pad in zip(geometries, pads, strict=True)]
        dilations = {d for k, _, _, d in laid if k > 1} or {1}
        d = min(dilations)
        low = max(own for _, own, _, _ in laid)
        reach = max(d * (k - 1) - own for k, own, _, _ in laid)
        grown = {own + high - d * (k - 1) for k, own, high, _ in laid}
        fits = all((low - own) % d == 0 for _, own, _, _ in laid)
        if len(dilations) > 1 or len(grown) > 1 or not fits:
            return None
        axes.append(((low + reach) // d + 1, (low, low), d))
    kernel, padding, dilation = zip(*axes, strict=True)
    if prod(kernel) > sum(prod(g.kernel) for g in geometries):
        return None
    return Geometry(kernel, geometries[0].stride, padding, dilation)
