"""A program that calls our operators, read as layers again: what was saved runs in rows as what was fused does."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..geometry import Geometry
from ..graph.network import stored
from ..graph.rewriting import call_instead, lift_convolutions, out_of_place
from ..nn import FusedBlock
from ..nn.fused import WEIGHTS
from ..ops.separable_conv2d.schema import geometry_of, operators
from .blocks import Size
from .changes import count_together
from .programs import Rowed, programmed

LINEAR = torch.ops.aten.linear.default


def layered(program: fx.GraphModule) -> Rowed:
    """The network of an exported program, its calls of our operators as layers and these in rows; is changed by it."""
    out_of_place(program)
    lift_convolutions(program, program)
    reads = Counter(n.target for n in program.graph.nodes if n.op == "get_attr" for _ in n.users)
    for node in list(program.graph.nodes):
        layer = _layer_of(program, node, reads)
        if layer is None:
            continue
        name, module, inputs = layer
        program.set_submodule(name, module)
        call_instead(program, node, name, *inputs)
    program.graph.eliminate_dead_code()
    program.delete_all_unused_submodules()
    program.recompile()
    values = {node: node.meta.get("val") for node in program.graph.nodes}
    sizes = {node: _size(value) for node, value in values.items() if isinstance(value, Tensor)}
    return Rowed(program, programmed(program, sizes, (), count_together(program)))


def _size(value: Tensor) -> Size:
    """The size for one picture: the batch is free."""
    return tuple(n if isinstance(n, int) else 1 for n in value.shape)


def _layer_of(
    program: fx.GraphModule, node: fx.Node, reads: Counter[Any]
) -> tuple[str, nn.Module, list[fx.Node]] | None:
    """Name, layer and inputs that stand for a call on weights which nothing else reads; None for any other node."""
    ours = (operators.fused_block.default, operators.separable_conv2d.default)
    if node.op != "call_function" or node.target not in (*ours, LINEAR):
        return None
    given = {argument.name: argument.default_value for argument in node.target._schema.arguments}  # type: ignore
    given |= dict(zip(given, node.args, strict=False)) | node.kwargs
    linear = node.target is LINEAR
    weights = {name: given.get(name) for name in (("weight", "bias") if linear else WEIGHTS)}
    nodes = {name: read for name, read in weights.items() if read is not None}
    if any(read.op != "get_attr" or reads[read.target] != 1 for read in nodes.values()):
        return None
    owners = {str(read.target).rpartition(".")[::2] for read in nodes.values()}
    name = str(next(iter(nodes.values())).target).rpartition(".")[0]
    held = {*program.get_submodule(name).state_dict()} if name else set()
    if owners != {(name, field) for field in nodes} or held != {*nodes} or given.get("kernel_name") is not None:
        return None
    tensors = {field: stored(program, read.target) for field, read in nodes.items()}
    if linear:
        return name, _linear(**tensors), [given["input"]]
    module = _block({field: tensors.get(field) for field in WEIGHTS}, given, given["x"].meta["val"].shape[1])
    return name, module, [value for value in (given["x"], given.get("residual")) if value is not None]


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight, layer.bias = (None if w is None else nn.Parameter(w, requires_grad=False) for w in (weight, bias))  # type: ignore
    return layer


def _block(weights: dict[str, Tensor | None], given: dict[str, Any], channels: int) -> FusedBlock:
    depthwise, pointwise, expand = weights["depthwise"], weights["pointwise"], weights["expand"]
    assert pointwise is not None
    wide = channels if expand is None else expand.shape[0]
    kernel = pointwise if depthwise is None else depthwise
    geometry: Geometry | None = geometry_of(kernel.shape, given["stride"], given["padding"], given["dilation"])
    if depthwise is None and geometry == Geometry.of((1, 1)):
        geometry = None
    names = ("widening", "between", "epsilon", "activation", "precision")
    return FusedBlock(
        weights,
        geometry,
        multiplier=1 if depthwise is None else depthwise.shape[0] // wide,
        adds=given.get("residual") is not None,
        **{name: given.get(name) for name in names},
    )
