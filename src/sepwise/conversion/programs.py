"""Rows of layers in a fused network that the compiled core runs in one call each, beside the network as it is."""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase
from torch.utils.hooks import RemovableHandle

from ..geometry import Geometry
from ..nn import FusedBlock, SeparableConv2d
from ..ops.fused_block import runs_compiled
from ..ops.program import WEIGHTS, Layer, Program, Step
from .activation import activations_of
from .blocks import Size
from .rewriting import hooked

aten: Any = torch.ops.aten
FLAT = (torch.flatten, aten.flatten.using_ints)
MEANS = (torch.mean, aten.mean.dim)
PRODUCTS = (operator.mul, torch.mul, aten.mul.Tensor)
POOLS = (F.adaptive_avg_pool2d, aten.adaptive_avg_pool2d.default)
_VERSION = operator.attrgetter("_version")
KEPT = 8  # programs of one row of layers, for inputs of as many sizes


@dataclass(frozen=True, eq=False)
class _Made:
    """A value of a row: given where it has no source; else made of others as a `Step` makes it."""

    source: _Made | None = None
    residual: _Made | None = None
    gate: _Made | None = None
    layer: Layer | None = None

    @property
    def read(self) -> list[_Made]:
        return [value for value in (self.source, self.residual, self.gate) if value is not None]


Known = tuple[_Made, Size]  # a value, and the shape in which the graph holds it


def programmed(network: fx.GraphModule, sizes: Mapping[fx.Node, Size], stock: Collection[str]) -> nn.Module | None:
    """The same network with every row of at least two such layers as one call; None where there is none.

    sizes      of the values of the graph
    stock      names of layers left to stock operations
    returns    a network that shares its modules with `network`; the row itself where there is nothing else
    """
    shapes = {node.name: size for node, size in sizes.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 asks itself for what it deprecates
        shared = fx.GraphModule(network, copy.deepcopy(network.graph))
    known: dict[fx.Node, Known] = {}
    for node in shared.graph.nodes:
        read = _read(node)
        if {*read} == {*node.all_input_nodes} and str(node.target) not in stock and node.name in shapes:
            _add(shared, node, known, {n: shapes[n.name] for n in read if n.name in shapes})
            if node in known and known[node][1] != shapes[node.name]:
                del known[node]

    class Supported(OperatorSupportBase):
        def is_node_supported(self, submodules: Mapping[str, nn.Module], node: fx.Node) -> bool:
            return node in known

    def is_row(nodes: Collection[fx.Node]) -> bool:
        """Whether they hold two layers, and make a program without all others."""
        within: dict[fx.Node, Known] = {}
        for node in shared.graph.nodes:
            if node in nodes:
                _add(shared, node, within, {n: shapes[n.name] for n in _read(node) if n not in nodes})
        return len(within) == len(nodes) and sum(_layer(shared, n) is not None for n in nodes) > 1

    partitioner = CapabilityBasedPartitioner(shared, Supported(), allows_single_node_partition=True)
    partitions = [p for p in partitioner.propose_partitions() if is_row({*p.nodes})]
    if not partitions:
        return None
    found = partitioner.fuse_partitions(partitions, prefix="row_")
    for name, module in list(found.named_children()):
        if name.startswith("row_") and isinstance(module, fx.GraphModule):
            found.set_submodule(name, Row(module))
    return _only(found)


def _only(network: fx.GraphModule) -> nn.Module:
    """The row that is all of a network; the network where there is more."""
    given, *called, output = network.graph.nodes
    row = network.get_submodule(str(called[0].target)) if called[0].op == "call_module" else None
    alone = len(called) == 1 and called[0].args == (given,) and output.args == (called[0],)
    return row if isinstance(row, Row) and alone else network


class Row(nn.Module):
    """Layers as a graph, run as one program where the compiled kernels may run; a program for each size of its inputs.

    A program holds weights in an order of its own. It is made anew when they are seen to have changed: other tensors, a
    change in place that PyTorch counts, or one that it does not count and that reaches their first or last numbers.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph = graph
        self._layers = [graph.get_submodule(str(n.target)) for n in graph.graph.nodes if n.op == "call_module"]
        self._weights = [layer._parameters for layer in self._layers]
        self._hooks, self._is_hooked = -1, False
        self._programs: dict[Any, tuple[Program, list[Size]]] = {}
        self._seen: tuple[Any, ...] = ()

    def forward(self, *given: Tensor) -> Any:
        if not runs_compiled(*given):
            return self.graph(*given)
        now = self._state()
        if now != self._seen:
            self._programs, self._seen = {}, now
        key = (torch.get_float32_matmul_precision(), given[0].dtype, *(x.shape for x in given))
        pictures = [x if x.dim() == 4 else x[:, :, None, None] for x in given]
        for _ in range(2):
            made = self._programs.get(key)
            if made is None:
                made = self._made(given, pictures)
                if made is None:
                    break
                while len(self._programs) >= KEPT:
                    self._programs.pop(next(iter(self._programs)), None)
                self._programs[key] = made
            program, shapes = made
            results = program(pictures)
            if results:
                found = [y.reshape(shape) for y, shape in zip(results, shapes, strict=True)]
                return found[0] if len(found) == 1 else tuple(found)
            self._programs.pop(key, None)
        return self.graph(*given)

    def _state(self) -> tuple[Any, ...]:
        """Differs whenever a program may have to be made anew.

        Looked at in every call, when the last one has filled the caches with weights: it touches little memory.
        """
        if self._hooks != RemovableHandle.next_id or self._is_hooked:  # counts all hooks, whatever they hang on
            self._hooks, self._is_hooked = RemovableHandle.next_id, any(map(hooked, self._layers))
        weights = [weight for layer in self._weights for weight in layer.values() if weight is not None]
        try:
            versions = [*map(_VERSION, weights)]
        except RuntimeError:  # tensors made in inference mode count no changes
            versions = [0 if weight.is_inference() else weight._version for weight in weights]
        trained = torch.is_grad_enabled() and [weight.requires_grad for weight in weights]
        return self._is_hooked, trained, [*map(Tensor.data_ptr, weights)], versions

    def _made(self, given: Sequence[Tensor], pictures: Sequence[Tensor]) -> tuple[Program, list[Size]] | None:
        """A program for inputs of this size and dtype, and the shapes of its results; None where the graph must run."""
        weights = [*self.parameters()]
        if any(w.dtype != given[0].dtype or (w.requires_grad and torch.is_grad_enabled()) for w in weights):
            return None
        graph = self.graph.graph
        taken = [node for node in graph.nodes if node.op == "placeholder"]  # among the others, where first read
        known = {node: (_Made(), tuple(x.shape)) for node, x in zip(taken, given, strict=True)}
        for node in graph.nodes:
            if node.op not in ("placeholder", "output"):
                _add(self.graph, node, known, {})
                if node not in known:
                    return None
        (output,) = (node for node in graph.nodes if node.op == "output")
        returned = [known[node] for node in output.all_input_nodes]
        steps, numbers = _steps([known[node][0] for node in taken], [made for made, _ in returned])
        outputs = [numbers[made] for made, _ in returned]
        if min(outputs) < len(given) or len({*outputs}) < len(outputs):
            return None
        return Program(pictures, steps, outputs), [shape for _, shape in returned]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_programs": {}, "_seen": ()}


def _read(node: fx.Node) -> list[fx.Node]:
    """The values that a node reads; one that is read twice, twice."""
    return [a for a in node.args if isinstance(a, fx.Node)]


def _steps(given: Sequence[_Made], returned: Sequence[_Made]) -> tuple[list[Step], dict[_Made, int]]:
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


def _add(graph: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Known], given: Mapping[fx.Node, Size]) -> None:
    """Note what a node makes, where it can be in a program.

    given    shapes of what it may read from outside, unless it is known
    """
    read = _read(node)
    if node.op not in ("call_module", "call_function", "call_method") or not read:
        return
    if any(n not in known and n not in given for n in read):
        return
    values = [known[n] if n in known else (_Made(), given[n]) for n in read]
    found = _result(graph, node, values, [len(n.users) == 1 for n in read])
    if found is not None:
        known[node] = found


def _result(graph: fx.GraphModule, node: fx.Node, values: Sequence[Known], alone: Sequence[bool]) -> Known | None:
    """What a node makes of values; None where it cannot be in a program.

    alone    whether nothing else reads the value: then what made it may become a part of this
    """
    source, shape = values[0]
    layer = _layer(graph, node)
    if layer is not None:
        residual = values[1][0] if len(values) > 1 else None
        pixels = (shape[2], shape[3]) if len(shape) == 4 else (1, 1)
        channels, size = layer.result(shape[1], pixels)
        made = _joined(_Made(source, residual, layer=layer)) if alone[0] else _Made(source, residual, layer=layer)
        return made, (shape[0], channels, *size)[: len(shape)]
    after = activations_of(graph, node)
    if after is not None:
        made = _activated(source, after) if alone[0] else None
        return None if made is None else (made, shape)
    if len(shape) == 4:
        if _multiplies(node) and len(values) == 2:
            (source, shape), (gate, size) = sorted(values, key=lambda value: value[1][2:] == (1, 1))
            return (_Made(source, gate=gate), shape) if size == (*shape[:2], 1, 1) else None
        flat = _mean(graph, node)
        if flat is not None:
            return _Made(source), shape[:2] if flat else (*shape[:2], 1, 1)
        if _flattens(graph, node) and shape[2:] == (1, 1):
            return source, shape[:2]
    return None


def _joined(made: _Made) -> _Made:
    """The same with what made its source as a part of it, where one layer can do both."""
    before, layer = made.source, made.layer
    assert before is not None
    assert layer is not None
    weights = layer.weights
    if before.gate is not None and before.layer is None and _is_pointwise(layer):
        return _Made(before.source, made.residual, before.gate, layer)
    expands = before.layer is not None and _is_pointwise(before.layer) and before.residual is before.gate is None
    if expands and weights.get("pointwise") is None and weights.get("expand") is None:
        first = before.layer
        assert first is not None
        both = {**weights, "expand": first.weights["pointwise"], "expand_bias": first.weights["bias"]}
        return _Made(before.source, made.residual, layer=replace(layer, weights=both, widening=first.activation))
    return made


def _activated(made: _Made, after: Sequence[str]) -> _Made | None:
    """The same with activations after it; None where the layer that made it has one, or it is no layer."""
    layer = made.layer
    if not after:
        return made
    if layer is None or len(after) > 1:
        return None
    place = "between" if layer.weights.get("pointwise") is None else "activation"
    if getattr(layer, place) is not None:
        return None
    return replace(made, layer=replace(layer, **{place: after[0]}))


def _is_pointwise(layer: Layer) -> bool:
    return layer.geometry is None and layer.weights.get("depthwise") is None and layer.epsilon is None


def _layer(graph: fx.GraphModule, node: fx.Node) -> Layer | None:
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
    """Whether a layer does what its class says, be it of a class of its own (timm's) or not."""
    if type(module) is nn.Linear:
        return True
    x = torch.randn(2, module.in_features, generator=torch.Generator().manual_seed(0)).to(module.weight)
    return torch.equal(module(x), F.linear(x, module.weight, module.bias))


def _mean(graph: fx.GraphModule, node: fx.Node) -> bool | None:
    """Whether a node that takes the mean over height and width leaves those axes out; None: it does something else."""
    arguments = (*node.args[1:], *node.kwargs.values())
    if node.op == "call_module":
        return _pools(graph.get_submodule(str(node.target)))
    if node.target in POOLS:
        return False if arguments in ((1,), ((1, 1),), ([1, 1],)) else None
    if node.target in MEANS or (node.op == "call_method" and node.target == "mean"):
        axes, keeps = (*arguments, False)[:2] if arguments else ((), False)
        axes = axes if isinstance(axes, (tuple, list)) else ()
        if list(axes) in ([2, 3], [-2, -1]) and len(arguments) < 3:
            return not keeps
    return None


@torch.no_grad()
def _pools(module: nn.Module) -> bool | None:
    """As `_mean`, for a module of any class: known by what it does."""
    if [*module.parameters()] or hooked(module):
        return None
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    try:
        found = module(x)
    except (RuntimeError, TypeError, ValueError):
        return None
    wanted = x.mean((2, 3))
    if not isinstance(found, Tensor) or found.shape not in ((2, 3), (2, 3, 1, 1)):
        return None
    return found.dim() == 2 if torch.allclose(found.reshape(2, 3), wanted, atol=1e-6) else None


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
