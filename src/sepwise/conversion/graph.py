"""A model as a graph in which every convolution is a module with a name: found, followed and replaced there."""

from __future__ import annotations

import copy
import inspect
import operator
import warnings
from collections import Counter
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

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
        """Put `module` at `name`, in the model and in its graph, under every name that the old module bears there."""
        old = self.graph.get_submodule(name)
        for root in (self.model, self.graph):
            for alias in [n for n, m in root.named_modules(remove_duplicate=False) if m is old]:
                root.set_submodule(alias, module)


def trace(model: nn.Module, example: Tensor | None = None) -> Network:
    """Copy `model` and follow it symbolically; where that fails, through `torch.export` with `example`.

    Convolutions inside the graph become `call_module` nodes, those of an exported program included. Arguments after
    the first keep their defaults. With an `example` the graph must answer it as the model does.
    Raises ModelError, with the reason, for a model that cannot be followed.
    """
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise ModelError("the model has lazy layers without a shape yet; call it once on an example first")
    copied = _copy(model)
    if not _is_exported(copied):
        copied.eval()
    graph = copied if isinstance(copied, fx.GraphModule) else _follow(copied, example)
    _out_of_place(graph)
    refused = _lift_convolutions(graph, copied)
    graph.recompile()
    sites, left_out = _find_sites(graph, refused)
    if not sites and not left_out:
        raise ModelError(f"{type(model).__name__} has no convolution to convert")
    if example is not None and graph is not copied:
        _require_same_answer(copied, graph, example[:2])
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


def _copy(model: nn.Module) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own remark on programs it exported
            return copy.deepcopy(model)
    except Exception as error:
        raise ModelError(f"{type(model).__name__} cannot be copied: {sentence(error)}") from None


def _follow(model: nn.Module, example: Tensor | None) -> fx.GraphModule:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that an argument keeps its default, unchecked
            return fx.GraphModule(model, _Tracer().trace(model, _defaults(model)))
    except Exception as symbolic:
        first = sentence(symbolic)
    if example is None:
        raise ModelError(f"{type(model).__name__} cannot be followed symbolically ({first}); give an example input")
    two = example.expand(2, *example.shape[1:]).contiguous() if len(example) == 1 else example  # one would stay one
    try:
        with redirect_stderr(StringIO()):  # where torch prints the whole graph when it fails
            program = torch.export.export(model, (two,), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False)
    except Exception as failure:
        raise ModelError(
            f"{type(model).__name__} cannot be followed: symbolically, {first}; by torch.export, {sentence(failure)}"
        ) from None
    exported = program.module(check_guards=False)
    assert isinstance(exported, fx.GraphModule)
    return exported


def _defaults(model: nn.Module) -> dict[str, Any]:
    """The plain default values of all arguments but the first."""
    arguments = list(inspect.signature(model.forward).parameters.values())[1:]
    return {a.name: a.default for a in arguments if a.default is None or isinstance(a.default, int | float | str)}


@torch.no_grad()
def _require_same_answer(model: nn.Module, graph: fx.GraphModule, example: Tensor) -> None:
    """Python that the tracer cannot see (aliases of what is written in place, tests of types) must not go unnoticed."""
    try:
        wanted, found = (pytree.tree_leaves(run(example.clone())) for run in (model, graph))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{type(model).__name__} cannot run on these pictures: {sentence(error)}") from error
    for a, b in zip(wanted, found, strict=True):
        if (
            isinstance(a, Tensor)
            and a.is_floating_point()
            and not torch.allclose(a, b, 1e-3, 1e-3 * float(a.abs().nan_to_num(0, 0, 0).max()), equal_nan=True)
        ):
            raise ModelError(
                f"{type(model).__name__} answers differently when followed as a graph; it cannot be converted"
            )


def _is_exported(model: nn.Module) -> bool:
    return isinstance(model, fx.GraphModule) and any(
        n.op == "call_function" and isinstance(n.target, torch._ops.OpOverload) for n in model.graph.nodes
    )


def _lift_convolutions(graph: fx.GraphModule, model: nn.Module) -> dict[fx.Node, tuple[str, str]]:
    """Turn every `aten.conv` call on the stored weight of a layer into a call of an `nn.Conv` that owns it.

    Where the graph is not the model itself, that is the model's own layer, so that both change together.
    returns    the calls that stay, of layers of the model that cannot be converted: (qualified name, why)
    """
    refused: dict[fx.Node, tuple[str, str]] = {}
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target not in _CONV_CALLS:
            continue
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        name = _owner(given["weight"], given.get("bias"))
        if name is None:
            continue
        if model is graph:
            conv = _conv_of(graph, name, _CONV_CALLS[node.target], given)
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
        with graph.graph.inserting_before(node):
            call = graph.graph.call_module(name, (given["input"],))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    return refused


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
    groups, padding = given.get("groups", 1), given.get("padding", 0)
    conv = kind(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=_tuple(given.get("stride", 1)),
        padding=padding if isinstance(padding, str) else _tuple(padding),
        dilation=_tuple(given.get("dilation", 1)),
        groups=groups,
        bias=given.get("bias") is not None,
        device="meta",
    )
    conv.weight = weight
    if given.get("bias") is not None:
        conv.bias = bias
    return conv.eval()


def _out_of_place(graph: fx.GraphModule) -> None:
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


def _find_sites(graph: fx.GraphModule, refused: dict[fx.Node, tuple[str, str]]) -> tuple[list[Site], dict[str, str]]:
    read = {str(n.target).rpartition(".")[0] for n in graph.graph.nodes if n.op == "get_attr"}
    calls = Counter(n.target for n in graph.graph.nodes if n.op == "call_module")
    sites: list[Site] = []
    left_out: dict[str, str] = {}
    for node in graph.graph.nodes:
        if node in refused:
            left_out[refused[node][0]] = refused[node][1]
        elif node.op == "call_function" and (node.target in _CONV_CALLS or node.target in _FUNCTIONAL):
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
        if reason is None and name in read:
            reason = "its weight is read by something else too"
        if reason:
            left_out[name] = reason
        else:
            sites.append(Site(name, node))
    return sites, left_out


_FUNCTIONAL = {torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d}


def stored(root: nn.Module, target: Any) -> Any:
    """The parameter or buffer with a qualified name."""
    return operator.attrgetter(str(target))(root)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def sentence(error: BaseException) -> str:
    """The first line of an error."""
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
