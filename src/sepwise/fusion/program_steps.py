"""What the nodes of a graph make, read as steps of a program: layers, gates, means; and which of them join."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ..geometry import Geometry
from ..graph.rewriting import hooked
from ..nn import FusedBlock, SeparableConv2d
from ..ops.program import WEIGHTS, Layer, Step
from .activation import activations_of
from .blocks import Size
from .pooled import largest_of, mean_of

aten: Any = torch.ops.aten
FLAT = (torch.flatten, aten.flatten.using_ints)
PRODUCTS = (operator.mul, torch.mul, aten.mul.Tensor)
LARGE = 1 << 17  # numbers: half a megabyte in float32, which no longer stays in the near caches


@dataclass(frozen=True, eq=False)
class Made:
    """A value of a row: given where it has no source; else made of others as a `Step` makes it."""

    source: Made | None = None
    residual: Made | None = None
    gate: Made | None = None
    layer: Layer | None = None

    @property
    def read(self) -> list[Made]:
        return [value for value in (self.source, self.residual, self.gate) if value is not None]


Known = tuple[Made, Size]  # a value, and the shape in which the graph holds it


def read_by(node: fx.Node) -> list[fx.Node]:
    """The values that a node reads; one that is read twice, twice."""
    return [a for a in node.args if isinstance(a, fx.Node)]


def steps_of(given: Sequence[Made], returned: Sequence[Made]) -> tuple[list[Step], dict[Made, int]]:
    """What makes these values of those given, each after what it reads; and the numbers of all values."""
    numbers = {made: index for index, made in enumerate(given)}
    steps: list[Step] = []
    waiting = [*reversed(returned)]
    while waiting:
        made = waiting[-1]
        missing = [value for value in made.read if value not in numbers]
        if made not in numbers and not missing:
            source, residual, gate = (-1 if v is None else numbers[v] for v in (made.source, made.residual, made.gate))
            numbers[made] = len(given) + len(steps)
            steps.append(Step(source, residual, made.layer, gate))
        if missing:
            waiting += reversed(missing)
        else:
            waiting.pop()
    return steps, numbers


def note(graph: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Known], given: Mapping[fx.Node, Size]) -> None:
    """Note what a node makes, where it can be in a program.

    given    shapes of what it may read from outside, unless it is known
    """
    read = read_by(node)
    if node.op not in ("call_module", "call_function", "call_method") or not read:
        return
    if any(n not in known and n not in given for n in read):
        return
    values = [known[n] if n in known else (Made(), given[n]) for n in read]
    found = _result(graph, node, values, [len(n.users) == 1 and read.count(n) == 1 for n in read])
    if found is not None:
        known[node] = found


def _result(graph: fx.GraphModule, node: fx.Node, values: Sequence[Known], alone: Sequence[bool]) -> Known | None:
    """What a node makes of values; None where it cannot be in a program.

    alone    whether nothing else reads the value: then what made it may become a part of this
    """
    source, shape = values[0]
    layer = layer_of(graph, node)
    if layer is None and len(shape) == 4:
        windows = largest_of(graph, node, (shape[2], shape[3]))
        layer = None if windows is None else Layer({}, windows, pooled=True)
    if layer is not None:
        residual = values[1][0] if len(values) > 1 else None
        pixels = (shape[2], shape[3]) if len(shape) == 4 else (1, 1)
        channels, size = layer.result(shape[1], pixels)
        made, result = Made(source, residual, layer=layer), (shape[0], channels, *size)[: len(shape)]
        return (_joined(made, result, shape) if alone[0] else made), result
    after = activations_of(graph, node)
    if after is not None:
        made = _activated(source, after, alone[0] and len(values) == 1, len(shape) == 4)
        return None if made is None else (made, shape)
    if len(shape) == 4:
        if _multiplies(node) and len(values) == 2:
            (source, shape), (gate, size) = sorted(values, key=lambda value: value[1][2:] == (1, 1))
            return (Made(source, gate=gate), shape) if size == (*shape[:2], 1, 1) else None
        flat = mean_of(graph, node)
        if flat is not None:
            return Made(source), shape[:2] if flat else (*shape[:2], 1, 1)
        if _flattens(graph, node) and shape[2:] == (1, 1):
            return source, shape[:2]
    return None


def _joined(made: Made, result: Size, shape: Size) -> Made:
    """The same with what made its source as a part of it, where one layer can do both, and gains by it.

    result    its shape
    shape     that of its source, which need not reach memory then
    """
    narrows, is_large = prod(result) < prod(shape), prod(shape) >= LARGE
    before, layer = made.source, made.layer
    assert before is not None
    assert layer is not None
    weights = layer.weights
    if before.gate is not None and before.layer is None and _is_pointwise(layer):
        return Made(before.source, made.residual, before.gate, layer)
    first = before.layer
    if first is None or not before.residual is before.gate is None or first.precision != layer.precision:
        return made
    if weights.get("expand") is not None:
        return made
    expands = _is_pointwise(first) or _is_dense(first, may_expand=True)
    if layer.pooled:
        joins = expands and is_large
    elif weights.get("pointwise") is None:
        joins = _is_pointwise(first)
    elif weights.get("depthwise") is None:
        joins = expands and _is_dense(layer) and narrows and is_large
    else:
        joins = _is_dense(first, may_expand=True) and is_large
    if not joins:
        return made
    both = {**weights, "expand": first.weights["pointwise"], "expand_bias": first.weights.get("bias")}
    whole = replace(layer, weights=both, widening=first.activation, expand_geometry=first.geometry)
    return Made(before.source, made.residual, layer=whole)


def _activated(made: Made, after: Sequence[str], alone: bool, is_picture: bool) -> Made | None:
    """The same with an activation after it; None for several of them, and for what is no picture.

    alone    whether nothing else reads it: then what made it takes the activation along, if that is a layer without one
    """
    layer = made.layer
    if not after:
        return made
    if len(after) > 1:
        return None
    if alone and layer is not None:
        place = "between" if layer.weights.get("pointwise") is None else "activation"
        if getattr(layer, place) is None:
            return replace(made, layer=replace(layer, **{place: after[0]}))
    return Made(made, layer=Layer({}, Geometry.of((1, 1)), between=after[0], pooled=True)) if is_picture else None


def _is_pointwise(layer: Layer) -> bool:
    return layer.geometry is None and layer.weights.get("depthwise") is None and layer.epsilon is None


def _is_dense(layer: Layer, may_expand: bool = False) -> bool:
    """Whether it is one dense convolution; asked for, one that may be the first of two in one pass."""
    geometry, weights = layer.geometry, layer.weights
    if geometry is None or layer.pooled or any(weights.get(name) is not None for name in ("depthwise", "expand")):
        return False
    if max(*geometry.kernel, *geometry.stride) == 1:
        return False
    return not may_expand or {*geometry.dilation} == {1}


def layer_of(graph: fx.GraphModule, node: fx.Node) -> Layer | None:
    """What a node computes as a layer; None when it is none that the kernels know."""
    if node.op != "call_module" or node.kwargs:
        return None
    module = graph.get_submodule(str(node.target))
    if hooked(module):
        return None
    if type(module) is FusedBlock:
        weights = {name: getattr(module, name) for name in WEIGHTS}
        words = (module.widening, module.between, module.epsilon, module.activation, module.precision)
        return Layer(weights, module.geometry, *words)
    if type(module) is SeparableConv2d:
        plain = module.between_norm is None and module.steps[1].groups == 1 and module.padding_mode == "zeros"
        weights = {name: getattr(module, name) for name in ("depthwise", "depthwise_bias", "pointwise", "bias")}
        words = (None, module.between, None, module.activation)
        return Layer(weights, module.conv.geometry, *words) if plain else None
    if type(module) is nn.Conv2d and module.groups == module.in_channels == module.out_channels:
        geometry = Geometry.of(module.kernel_size, module.stride, module.padding, module.dilation)
        weights = {"depthwise": module.weight, "depthwise_bias": module.bias}
        return Layer(weights, geometry) if module.padding_mode == "zeros" else None
    if isinstance(module, nn.Linear) and _is_linear(module):
        return Layer({"pointwise": module.weight[:, :, None, None], "bias": module.bias})
    return None


@torch.no_grad()
def _is_linear(module: nn.Linear) -> bool:
    """Whether a layer, timm's or another one, does what its class says, with weights that it holds."""
    if type(module) is nn.Linear:
        return True
    if "weight" not in module._parameters:  # computed for each call, of others that are not watched
        return False
    x = torch.randn(2, module.in_features, generator=torch.Generator().manual_seed(0)).to(module.weight)
    return torch.equal(module(x), F.linear(x, module.weight, module.bias))


def _multiplies(node: fx.Node) -> bool:
    """Whether a node multiplies two values."""
    method = node.op == "call_method" and node.target == "mul"
    return (method or node.target in PRODUCTS) and len(node.args) == 2 and not node.kwargs


def _flattens(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node flattens all axes but the first."""
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
    known = node.target in FLAT or (node.op == "call_method" and node.target == "flatten")
    arguments = (*node.args[1:], *node.kwargs.values())
    return known and arguments in ((1,), (1, -1))
