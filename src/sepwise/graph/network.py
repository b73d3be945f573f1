"""A model as a graph in which every convolution is a module with a name: found, followed and replaced there."""

from __future__ import annotations

import copy
import inspect
import operator
import warnings
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ..errors import ModelError
from ..nn import FactoredConv, FusedBlock
from ..nn.dense import DenseConv
from .rewriting import CONV_CALLS, CONVS, calls_of, lift_convolutions, out_of_place, why_not_convertible

FUNCTIONAL = {torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


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


def trace(model: nn.Module, example: Tensor | None = None, inside: tuple[type[nn.Module], ...] = ()) -> Network:
    """Copy `model` and follow it symbolically; where that fails, through `torch.export` with `example`.

    Convolutions inside the graph become `call_module` nodes, those of an exported program included. Arguments after
    the first keep their defaults. With an `example` the graph must answer it as the model does.
    inside    layers besides convolutions and normalizations that must be found as nodes of their own
    Raises ModelError, with the reason, for a model that cannot be followed.
    """
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise ModelError("the model has lazy layers without a shape yet; call it once on an example first")
    copied = copy_of(model)
    if not is_exported(copied):
        copied.eval()
    graph = copied if isinstance(copied, fx.GraphModule) else _follow(copied, example, inside)
    out_of_place(graph)
    refused = lift_convolutions(graph, copied)
    graph.recompile()
    sites, left_out = _find_sites(graph, refused)
    if not sites and not left_out:
        raise ModelError(f"{type(model).__name__} has no convolution to convert")
    if example is not None and graph is not copied:
        _require_same_answer(copied, graph, example[:2])
    return Network(copied, graph, sites, left_out)


class _Tracer(fx.Tracer):
    """Goes into a module only when a convolution or a normalization is found inside, or what is asked for."""

    def __init__(self, inside: tuple[type[nn.Module], ...] = ()) -> None:
        super().__init__()
        self.inside = inside

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = (*CONVS, *NORMS, FactoredConv, *self.inside)
        if isinstance(m, known) or super().is_leaf_module(m, module_qualified_name):
            return True
        return not any(isinstance(c, known) for c in m.modules())


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy. Raises ModelError for a model that cannot be copied."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own remark on programs it exported
            return copy.deepcopy(model)
    except Exception as error:
        raise ModelError(f"{type(model).__name__} cannot be copied: {sentence(error)}") from None


def _follow(model: nn.Module, example: Tensor | None, inside: tuple[type[nn.Module], ...]) -> fx.GraphModule:
    first = ""
    for tracer in [_Tracer(inside), _Tracer()] if inside else [_Tracer()]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that an argument keeps its default, unchecked
                return fx.GraphModule(model, tracer.trace(model, _defaults(model)))
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


def is_exported(model: nn.Module) -> bool:
    return isinstance(model, fx.GraphModule) and any(
        n.op == "call_function" and isinstance(n.target, torch._ops.OpOverload) for n in model.graph.nodes
    )


def _find_sites(graph: fx.GraphModule, refused: dict[fx.Node, tuple[str, str]]) -> tuple[list[Site], dict[str, str]]:
    read = {str(n.target).rpartition(".")[0] for n in graph.graph.nodes if n.op == "get_attr"}
    calls = calls_of(graph.graph)
    sites: list[Site] = []
    left_out: dict[str, str] = {}
    for node in graph.graph.nodes:
        if node in refused:
            left_out[refused[node][0]] = refused[node][1]
        elif node.op == "call_function" and (node.target in CONV_CALLS or node.target in FUNCTIONAL):
            left_out[node.name] = "a functional convolution; only convolutions with a stored weight are converted"
        if node.op != "call_module":
            continue
        name = str(node.target)
        module = graph.get_submodule(name)
        if isinstance(module, FactoredConv):
            left_out[name] = "already separable"
        if isinstance(module, FusedBlock):
            left_out[name] = "already fused"
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


def stored(root: nn.Module, target: Any) -> Any:
    """The parameter or buffer with a qualified name."""
    return operator.attrgetter(str(target))(root)


def sentence(error: BaseException) -> str:
    """The first line of an error."""
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
