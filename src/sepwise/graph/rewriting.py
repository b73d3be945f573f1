"""Graphs rewritten until every convolution is a module with a name and nothing writes into its input."""

from __future__ import annotations

import inspect
import operator
from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..errors import ModelError
from ..nn.dense import DenseConv, why_not_dense

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONV_CALLS = {
    torch.ops.aten.conv1d.default: nn.Conv1d,
    torch.ops.aten.conv2d.default: nn.Conv2d,
    torch.ops.aten.conv3d.default: nn.Conv3d,
    torch.ops.aten.conv2d.padding: nn.Conv2d,
    torch.ops.aten.conv1d.padding: nn.Conv1d,
    torch.ops.aten.conv3d.padding: nn.Conv3d,
}


def lift_convolutions(graph: fx.GraphModule, model: nn.Module) -> dict[fx.Node, tuple[str, str]]:
    """Turn every `aten.conv` call on the stored weight of a layer into a call of an `nn.Conv` that owns it.

    Where the graph is not the model itself, that is the model's own layer, so that both change together.
    returns    the calls that stay, of layers of the model that cannot be converted: (qualified name, why)
    """
    refused: dict[fx.Node, tuple[str, str]] = {}
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target not in CONV_CALLS:
            continue
        given = given_to(node)
        name = _owner(given["weight"], given.get("bias"))
        if name is None:
            continue
        if model is graph:
            conv = _conv_of(graph, name, CONV_CALLS[node.target], given)
        else:
            conv = model.get_submodule(name)
            reason = why_not_convertible(conv) if isinstance(conv, CONVS) else "it is no convolution layer"
            if reason:
                refused[node] = (name, reason)
                continue
            if conv.padding_mode != "zeros":  # the layer pads its input itself
                given["input"] = given["input"].args[0]
        if conv is None:
            continue
        graph.set_submodule(name, conv)
        call_instead(graph, node, name, given["input"])
    graph.graph.eliminate_dead_code()
    return refused


def given_to(node: fx.Node) -> dict[str, Any]:
    """The arguments of an `aten.conv` call by name."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def call_instead(graph: fx.GraphModule, node: fx.Node, name: str, *values: fx.Node) -> fx.Node:
    """Put a call of the module `name` on `values` in the place of a node."""
    with graph.graph.inserting_before(node):
        call = graph.graph.call_module(name, values)
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    graph.graph.erase_node(node)
    return call


def _owner(weight: Any, bias: Any) -> str | None:
    """The qualified name of the layer whose `weight` and `bias` these nodes read; None when they are anything else."""
    for node, field in ((weight, "weight"), (bias, "bias")):
        if node is not None and not (isinstance(node, fx.Node) and node.op == "get_attr"):
            return None
        if node is not None and str(node.target) != f"{str(weight.target).rpartition('.')[0]}.{field}":
            return None
    return str(weight.target).rpartition(".")[0] or None


def _conv_of(graph: fx.GraphModule, name: str, kind: Any, given: dict[str, Any]) -> nn.Module | None:
    """A convolution layer around the parameters stored at `name`; None when other things are stored there too."""
    holder = graph.get_submodule(name)
    weight, bias = getattr(holder, "weight", None), getattr(holder, "bias", None)
    held = {*holder._parameters, *holder._buffers, *holder._modules}
    if held - {"weight", "bias"} or not isinstance(weight, nn.Parameter):
        return None
    return conv_around(weight, bias if given.get("bias") is not None else None, kind, given)


def conv_around(weight: nn.Parameter, bias: nn.Parameter | None, kind: Any, given: dict[str, Any]) -> nn.Module:
    """A convolution layer of this kind that owns the parameters, called as an `aten.conv` was: see `given_to`."""
    groups, padding = given.get("groups", 1), given.get("padding", 0)
    conv = kind(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=_tuple(given.get("stride", 1)),
        padding=padding if isinstance(padding, str) else _tuple(padding),
        dilation=_tuple(given.get("dilation", 1)),
        groups=groups,
        bias=bias is not None,
        device="meta",
    )
    conv.weight = weight
    if bias is not None:
        conv.bias = bias
    return conv.eval()


def out_of_place(graph: fx.GraphModule) -> None:
    """Rewrite what writes into its input, so that values can be kept and run through again.

    Who reads the input later reads what was written instead. Raises ModelError where only a part is written.
    """
    plain = {operator.iadd: operator.add, operator.imul: operator.mul, operator.isub: operator.sub}
    for node in graph.graph.nodes:
        writes = True
        if node.op == "call_function" and node.target in plain:
            node.target = plain[node.target]
        elif node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            name, overload = node.target._schema.name.partition("::")[2], node.target._overloadname
            writes = name.endswith("_") and hasattr(torch.ops.aten, name[:-1])
            if writes and _is_part(node.args[0]):
                raise ModelError(f"the model writes into a part of a value ({node.name}), which cannot be followed")
            if writes:
                node.target = getattr(getattr(torch.ops.aten, name[:-1]), overload)
        elif node.op == "call_function" and getattr(torch, _name(node), None) is node.target and _name(node)[-1] == "_":
            node.target = getattr(torch, _name(node)[:-1])
        elif node.op == "call_function" and getattr(node.target, "__module__", "") == "torch.nn.functional":
            writes = _answers_anew(node)
        elif node.op == "call_method" and str(node.target).endswith("_") and hasattr(Tensor, str(node.target)[:-1]):
            node.target = str(node.target)[:-1]
        else:
            writes = node.op == "call_module" and getattr(graph.get_submodule(str(node.target)), "inplace", False)
        if writes and node.args and isinstance(node.args[0], fx.Node):
            node.args[0].replace_all_uses_with(node, lambda user, at=node: user > at)


def _answers_anew(node: fx.Node) -> bool:
    """Take `inplace=True` from a call of `torch.nn.functional`; whether it was there."""
    arguments: Any = inspect.signature(node.target).parameters  # type: ignore[arg-type]
    if "inplace" not in arguments:
        return False
    given = dict(zip(arguments, node.args, strict=False)) | node.kwargs
    if given.get("inplace") is not True:
        return False
    first = next(iter(given))
    node.args, node.kwargs = (given.pop(first),), {**given, "inplace": False}
    return True


def _name(node: fx.Node) -> str:
    return getattr(node.target, "__name__", "?")


def _is_part(node: Any) -> bool:
    """Whether an operator of an exported graph shares its memory with a value that others read too."""
    while isinstance(node, fx.Node) and isinstance(node.target, torch._ops.OpOverload):
        returns = node.target._schema.returns
        if not returns or returns[0].alias_info is None or returns[0].alias_info.is_write:
            return False
        node = node.args[0]
        if len(node.users) > 1:
            return True
    return False


def hooked(module: nn.Module) -> bool:
    """Whether a module calls something besides its `forward`, which would be lost with it."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def calls_of(graph: fx.Graph) -> Counter[Any]:
    """Name of a module -> how many nodes call it."""
    return Counter(node.target for node in graph.nodes if node.op == "call_module")


def why_not_convertible(conv: DenseConv) -> str | None:
    """The reason a convolution may not be replaced by a chain of others; None when it may.

    Raises ModelError when its weight holds NaN or Inf.
    """
    reason = why_not_dense(conv, conv.weight.dim() - 2)
    if reason:
        return reason
    if hooked(conv):
        return "it carries forward hooks, which would be lost"
    if not bool(conv.weight.isfinite().all()):
        raise ModelError("a convolution weight holds NaN or Inf; repair or reload the weights first")
    return None


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value
