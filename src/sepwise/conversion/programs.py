"""Rows of layers in a fused network that the compiled core runs in one call each, beside the network as it is."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from ..nn import FusedBlock, SeparableConv2d
from ..ops.fused_block import runs_compiled
from ..ops.program import WEIGHTS, Layer, Program, Step
from .blocks import Size

aten: Any = torch.ops.aten
FLAT = (torch.flatten, aten.flatten.using_ints)
MEANS = (torch.mean, aten.mean.dim)
POOLS = (F.adaptive_avg_pool2d, aten.adaptive_avg_pool2d.default)
KEPT = 8  # programs of one row of layers, for inputs of as many sizes


def programmed(
    network: fx.GraphModule, sizes: Mapping[fx.Node, Size], stock: Collection[str] = ()
) -> fx.GraphModule | None:
    """The same network with every row of at least two such layers as one call; None where there is none.

    sizes      of the values of the graph
    stock      names of layers left to stock operations
    returns    a network that shares its modules with `network`
    """
    shapes = {node.name: size for node, size in sizes.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 asks itself for what it deprecates
        shared = fx.GraphModule(network, copy.deepcopy(network.graph))

    class Known(OperatorSupportBase):
        def is_node_supported(self, submodules: Mapping[str, nn.Module], node: fx.Node) -> bool:
            read = _read(node)
            if node.op not in ("call_module", "call_function", "call_method") or {*read} != {*node.all_input_nodes}:
                return False
            if str(node.target) in stock or not read or not all(n.name in shapes for n in (node, *read)):
                return False
            return _step(shared, node, [(0, shapes[n.name]) for n in read])[1] == shapes[node.name]

    partitioner = CapabilityBasedPartitioner(shared, Known(), allows_single_node_partition=True)
    partitions = [
        p for p in partitioner.propose_partitions() if sum(_layer(shared, n) is not None for n in p.nodes) > 1
    ]
    if not partitions:
        return None
    found = partitioner.fuse_partitions(partitions, prefix="row_")
    for name, module in list(found.named_children()):
        if name.startswith("row_") and isinstance(module, fx.GraphModule):
            found.set_submodule(name, Row(module))
    return found


class Row(nn.Module):
    """Layers as a graph, run as one program where the compiled kernels may run; a program for each size of its inputs.

    A program holds weights in an order of its own. It is made anew when they are seen to have changed: other tensors, a
    change in place that PyTorch counts, or one that it does not count and that reaches their first or last numbers.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph = graph
        self._layers = [graph.get_submodule(str(n.target)) for n in graph.graph.nodes if n.op == "call_module"]
        self._programs: dict[Any, tuple[Program, list[Size]]] = {}
        self._seen: list[Any] = []

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

    def _state(self) -> list[Any]:
        """Differs whenever a program may have to be made anew."""
        state: list[Any] = [torch.is_grad_enabled()]
        for layer in self._layers:
            state.append(bool(layer._forward_hooks or layer._forward_pre_hooks))
            for weight in layer._parameters.values():
                if weight is not None:
                    version = 0 if weight.is_inference() else weight._version
                    state += (weight.data_ptr(), version, weight.requires_grad)
        return state

    def _made(self, given: Sequence[Tensor], pictures: Sequence[Tensor]) -> tuple[Program, list[Size]] | None:
        """A program for inputs of this size and dtype, and the shapes of its results; None where the graph must run."""
        weights = [*self.parameters()]
        if any(w.dtype != given[0].dtype or (w.requires_grad and torch.is_grad_enabled()) for w in weights):
            return None
        taken = [
            node for node in self.graph.graph.nodes if node.op == "placeholder"
        ]  # among the others, where first read
        known = {node: (index, tuple(x.shape)) for index, (node, x) in enumerate(zip(taken, given, strict=True))}
        steps: list[Step] = []
        returned: list[tuple[int, Size]] = []
        for node in self.graph.graph.nodes:
            if node in known:
                continue
            if node.op == "output":
                returned = [known[n] for n in node.all_input_nodes]
                continue
            sources = [known[n] for n in _read(node)]
            step, shape = _step(self.graph, node, sources)
            if shape is None:
                return None
            if step is not None:
                steps.append(step)
            known[node] = (len(given) + len(steps) - 1 if step is not None else sources[0][0]), shape
        outputs = [index for index, _ in returned]
        if min(outputs) < len(given) or len({*outputs}) < len(outputs):
            return None
        return Program(pictures, steps, outputs), [shape for _, shape in returned]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_programs": {}, "_seen": []}


def _read(node: fx.Node) -> list[fx.Node]:
    """The values that a node reads; one that is read twice, twice."""
    return [a for a in node.args if isinstance(a, fx.Node)]


def _step(graph: fx.GraphModule, node: fx.Node, sources: Sequence[tuple[int, Size]]) -> tuple[Step | None, Size | None]:
    """What a node is in a program, no step where it only names a value anew; and the shape of its value.

    No shape: it cannot be in a program.
    """
    source, shape = sources[0]
    layer = _layer(graph, node)
    if layer is not None:
        pixels = (shape[2], shape[3]) if len(shape) == 4 else (1, 1)
        channels, size = layer.result(shape[1], pixels)
        residual = sources[1][0] if len(sources) > 1 else -1
        return Step(source, residual, layer), (shape[0], channels, *size)[: len(shape)]
    if len(shape) == 4:
        flat = _mean(graph, node)
        if flat is not None:
            return Step(source), shape[:2] if flat else (*shape[:2], 1, 1)
        if _flattens(graph, node) and shape[2:] == (1, 1):
            return None, shape[:2]
    return None, None


def _layer(graph: fx.GraphModule, node: fx.Node) -> Layer | None:
    """What a node computes as a layer; None when it is none that the kernels know."""
    if node.op != "call_module" or node.kwargs:
        return None
    module = graph.get_submodule(str(node.target))
    if module._forward_hooks or module._forward_pre_hooks:
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
    if [*module.parameters()] or module._forward_hooks or module._forward_pre_hooks:
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


def _flattens(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node flattens all axes but the first."""
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
    known = node.target in FLAT or (node.op == "call_method" and node.target == "flatten")
    arguments = (*node.args[1:], *node.kwargs.values())
    return known and arguments in ((1,), (1, -1))
