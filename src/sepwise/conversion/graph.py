"""A model as a graph in which every convolution is a module with a name: found, followed and replaced there."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..errors import ModelError
from ..nn import FactoredConv
from ..nn.dense import DenseConv, why_not_dense

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONV_CALLS = {
    torch.ops.aten.conv1d.default: nn.Conv1d,
    torch.ops.aten.conv2d.default: nn.Conv2d,
    torch.ops.aten.conv3d.default: nn.Conv3d,
    torch.ops.aten.conv2d.padding: nn.Conv2d,
    torch.ops.aten.conv1d.padding: nn.Conv1d,
    torch.ops.aten.conv3d.padding: nn.Conv3d,
}


@dataclass
class Site:
    """One convolution of the network that may be converted: its qualified name and the node that calls it."""

    name: str
    node: fx.Node


@dataclass
class Network:
    """A copy of the user's model, free to be changed, beside the graph of what it computes.

    model       the copy; called like the original
    graph       the same computation as a graph; its modules bear the qualified names they have in `model`
    sites       convolutions that can be converted, in the order in which they run
    left_out    name -> one sentence, for convolutions that cannot
    """

    model: nn.Module
    graph: fx.GraphModule
    sites: list[Site]
    left_out: dict[str, str]

    def conv(self, site: Site) -> DenseConv:
        """The dense convolution of a site."""
        module = self.graph.get_submodule(site.name)
        assert isinstance(module, CONVS)
        return module

    def site(self, name: str) -> Site | None:
        """The site with a qualified name; None when there is none."""
        return next((s for s in self.sites if s.name == name), None)

    def replace(self, name: str, module: nn.Module) -> None:
        """Put `module` at `name`, in the model and in its graph."""
        for root in (self.model, self.graph):
            if _has_module(root, name):
                root.set_submodule(name, module)


def trace(model: nn.Module, example: Tensor | None = None) -> Network:
    """Copy `model` and follow it symbolically; where that fails, through `torch.export` with `example`.

    Convolutions inside the graph become `call_module` nodes, those of an exported program included.
    Raises ModelError, with the reason, for a model that cannot be followed.
    """
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise ModelError("the model has lazy layers without a shape yet; call it once on an example first")
    copied = copy.deepcopy(model)
    if not _is_exported(copied):
        copied.eval()
    graph = copied if isinstance(copied, fx.GraphModule) else _follow(copied, example)
    _lift_convolutions(graph)
    _out_of_place(graph)
    graph.recompile()
    sites, left_out = _find_sites(graph)
    if not sites and not left_out:
        raise ModelError(f"{type(model).__name__} has no convolution to convert")
    return Network(copied, graph, sites, left_out)


def why_not_convertible(conv: DenseConv) -> str | None:
    """The reason a convolution may not be replaced by a chain of others; None when it may.

    Raises ModelError when its weight holds NaN or Inf.
    """
    reason = why_not_dense(conv, conv.weight.dim() - 2)
    if reason:
        return reason
    if conv._forward_hooks or conv._forward_pre_hooks:
        return "it carries forward hooks, which would be lost"
    if not bool(conv.weight.isfinite().all()):
        raise ModelError("a convolution weight holds NaN or Inf; repair or reload the weights first")
    return None


class _Tracer(fx.Tracer):
    """Goes into a module only when a convolution or a normalization is found inside."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, FactoredConv) or super().is_leaf_module(m, module_qualified_name):
            return True
        return isinstance(m, (*CONVS, *NORMS)) or not any(isinstance(c, (*CONVS, *NORMS)) for c in m.modules())


def _follow(model: nn.Module, example: Tensor | None) -> fx.GraphModule:
    try:
        return fx.GraphModule(model, _Tracer().trace(model))
    except Exception as symbolic:
        first = _sentence(symbolic)
    if example is None:
        raise ModelError(f"{type(model).__name__} cannot be followed symbolically ({first}); give an example input")
    try:
        exported = torch.export.export(model, (example,), strict=False).module()
    except Exception as failure:
        raise ModelError(
            f"{type(model).__name__} cannot be followed: symbolically, {first}; by torch.export, {_sentence(failure)}"
        ) from None
    assert isinstance(exported, fx.GraphModule)
    return exported


def _is_exported(model: nn.Module) -> bool:
    return isinstance(model, fx.GraphModule) and any(
        n.op == "call_function" and isinstance(n.target, torch._ops.OpOverload) for n in model.graph.nodes
    )


def _lift_convolutions(graph: fx.GraphModule) -> None:
    """Turn every `aten.conv` call on stored parameters into a call of an `nn.Conv` that owns them."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target not in _CONV_CALLS:
            continue
        kind = _CONV_CALLS[node.target]
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        weight, bias = given["weight"], given.get("bias")
        owners = [n for n in (weight, bias) if n is not None]
        if not all(isinstance(n, fx.Node) and n.op == "get_attr" and str(n.target).count(".") for n in owners):
            continue
        name = str(weight.target).rpartition(".")[0]
        kernel = stored(graph, weight.target)
        conv = kind(
            kernel.shape[1] * given.get("groups", 1),
            kernel.shape[0],
            tuple(kernel.shape[2:]),
            stride=_tuple(given.get("stride", 1)),
            padding=given.get("padding", 0)
            if isinstance(given.get("padding"), str)
            else _tuple(given.get("padding", 0)),
            dilation=_tuple(given.get("dilation", 1)),
            groups=given.get("groups", 1),
            bias=bias is not None,
            device="meta",
        )
        conv.weight = stored(graph, weight.target)
        if bias is not None:
            conv.bias = stored(graph, bias.target)
        graph.set_submodule(name, conv.eval())
        with graph.graph.inserting_before(node):
            call = graph.graph.call_module(name, (given["input"],))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()


def _out_of_place(graph: fx.GraphModule) -> None:
    """Rewrite functions that write into their inputs, so that values can be kept and run through again."""
    plain = {operator.iadd: operator.add, operator.imul: operator.mul, operator.isub: operator.sub}
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.target in plain:
            node.target = plain[node.target]
        elif node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            name, overload = node.target._schema.name.partition("::")[2], node.target._overloadname
            if name.endswith("_") and hasattr(torch.ops.aten, name[:-1]):
                node.target = getattr(getattr(torch.ops.aten, name[:-1]), overload)
        elif node.op == "call_method" and str(node.target).endswith("_") and hasattr(Tensor, str(node.target)[:-1]):
            node.target = str(node.target)[:-1]
        if "inplace" in node.kwargs:
            node.kwargs = {**node.kwargs, "inplace": False}


def _find_sites(graph: fx.GraphModule) -> tuple[list[Site], dict[str, str]]:
    calls = Counter(n.target for n in graph.graph.nodes if n.op == "call_module")
    sites: list[Site] = []
    left_out: dict[str, str] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function" and (node.target in _CONV_CALLS or node.target in _FUNCTIONAL):
            left_out[node.name] = "a functional convolution; only convolutions with a stored weight are converted"
        if node.op != "call_module":
            continue
        name = str(node.target)
        module = graph.get_submodule(name)
        if isinstance(module, FactoredConv):
            left_out[name] = "already separable"
        if not isinstance(module, CONVS):
            continue
        reason = why_not_convertible(module)
        if reason is None and calls[name] > 1:
            reason = f"it is called {calls[name]} times, each time on other inputs"
        if reason:
            left_out[name] = reason
        else:
            sites.append(Site(name, node))
    return sites, left_out


_FUNCTIONAL = {torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d}


def _has_module(root: nn.Module, name: str) -> bool:
    try:
        root.get_submodule(name)
    except AttributeError:
        return False
    return True


def stored(root: nn.Module, target: Any) -> Any:
    """The parameter or buffer with a qualified name."""
    return operator.attrgetter(str(target))(root)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _sentence(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
