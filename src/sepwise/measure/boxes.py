"""The nodes of a followed graph, read as boxes: one for each operation that a person would draw."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from ..geometry import ConvShape
from ..nn import FactoredConv
from ..nn.dense import DenseConv, shape_of_dense

SUMS = (operator.add, operator.iadd, torch.add)
ACTIVATIONS = ("relu", "relu6", "silu", "hardswish", "gelu", "elu", "sigmoid", "tanh")
SPLITS = (torch.split, torch.chunk, "split", "chunk")


@dataclass(frozen=True)
class Box:
    """One operation.

    operation    "input", "output", "convolution", "norm", "activation", "pool", "split", "concatenate", "sum", or the
                 name of another function or module
    shape        of its output, without the batch: (channels, height, width)
    channels     of a convolution: (in, out)
    kernel, stride    of a convolution or a pool
    groups       of a convolution
    then         what else happens in its place: names of norms and activations, "bias" after a sum, the kind of a pool
    """

    operation: str
    shape: tuple[int, ...] = ()
    channels: tuple[int, int] | None = None
    kernel: tuple[int, ...] | None = None
    stride: tuple[int, ...] | None = None
    groups: int = 1
    then: tuple[str, ...] = ()


def boxes_and_arrows(graph: fx.GraphModule) -> tuple[tuple[Box, ...], tuple[tuple[int, int], ...]]:
    """The boxes in the order of the graph, whose nodes know their shapes (`meta["shape"]`), and the arrows."""
    reader = _Reader(graph)
    for node in graph.graph.nodes:
        reader.read(node)
    return tuple(reader.boxes), tuple(reader.arrows)


class _Reader:
    """`at` says which box a node's value comes out of: None for weights, which are not drawn."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.boxes: list[Box] = []
        self.arrows: list[tuple[int, int]] = []
        self.at: dict[fx.Node, int | None] = {}
        self.shared: set[fx.Node] = set()  # values that more than one node reads, whose boxes take in nothing else

    def read(self, node: fx.Node) -> None:
        inputs = [n for n in node.all_input_nodes if self.at[n] is not None]
        if len(node.users) > 1:
            self.shared.add(node)
        if node.op in ("placeholder", "output"):
            self.box(node, inputs, Box("input" if node.op == "placeholder" else "output"))
        elif not inputs:
            self.at[node] = None
        elif node.op == "call_module":
            self.module(node, inputs, self.graph.get_submodule(str(node.target)))
        else:
            self.function(node, inputs, node.target)

    def module(self, node: fx.Node, inputs: list[fx.Node], module: nn.Module) -> None:
        kind, name = type(module).__module__.rpartition(".")[2], type(module).__name__.lower()
        if isinstance(module, FactoredConv):
            self.steps(node, inputs, module)
        elif isinstance(module, DenseConv):
            self.box(node, inputs, _convolution(shape_of_dense(module)))
        elif isinstance(module, nn.Identity) or kind == "dropout":
            self.pass_on(node, inputs[0])
        elif kind in ("batchnorm", "instancenorm", "normalization"):
            self.follow(node, inputs, "norm", name)
        elif kind == "activation":
            self.follow(node, inputs, "activation", name)
        elif kind == "pooling":
            kernel, stride = (_each(getattr(module, size, None)) for size in ("kernel_size", "stride"))
            self.box(node, inputs, Box("pool", kernel=kernel, stride=stride, then=(name,)))
        else:
            self.box(node, inputs, Box(name))

    def function(self, node: fx.Node, inputs: list[fx.Node], target: Any) -> None:
        if target is operator.getitem:
            self.pass_on(node, inputs[0])
            self.shared.add(node)  # a piece is not the split that it comes from
        elif target in SPLITS:
            self.box(node, inputs, Box("split", tuple(inputs[0].meta["shape"])))
        elif target is torch.cat:
            self.box(node, inputs, Box("concatenate"))
        elif target in SUMS:
            self.sum(node, inputs)
        elif (name := target if isinstance(target, str) else target.__name__) in ACTIVATIONS:
            self.follow(node, inputs, "activation", name)
        else:
            self.box(node, inputs, Box(name))

    def sum(self, node: fx.Node, inputs: list[fx.Node]) -> None:
        """A sum that is added to is still one sum; what no picture is added to has a bias."""
        terms = [n for n in node.args if n in inputs]  # twice the same one in x + x
        bias = ("bias",) if len(terms) == 1 else ()
        number = self.number(terms[0])
        earlier = all(self.number(n) < number for n in terms[1:])  # else the sum would run before its terms
        if not self.open(terms[0], "sum") or not earlier or set(self.boxes[number].then) - {"bias"}:
            self.box(node, terms, Box("sum", then=bias))
            return
        self.pass_on(node, terms[0])
        self.arrows += [(self.number(n), number) for n in terms[1:]]
        self.boxes[number] = replace(self.boxes[number], then=(*self.boxes[number].then, *bias))

    def steps(self, node: fx.Node, inputs: list[fx.Node], layer: FactoredConv) -> None:
        """The convolutions of a layer, one after the other; `between` stands after the first."""
        size = tuple(inputs[0].meta["shape"][1:])
        between = getattr(layer, "between_norm", None), getattr(layer, "between", None)
        inside = (*([type(between[0]).__name__.lower()] if between[0] else []), *([between[1]] if between[1] else []))
        last = getattr(layer, "activation", None)
        for step in layer.steps:
            size = step.geometry.output_size(size)
            then = inside if step is layer.steps[0] else ()
            then = (*then, last) if step is layer.steps[-1] and last else then
            drawn = replace(_convolution(step), shape=(step.out_channels, *size), then=then)
            self.box(node, inputs if step is layer.steps[0] else [node], drawn)

    def follow(self, node: fx.Node, inputs: list[fx.Node], operation: str, name: str) -> None:
        """Written into the box before it where nothing else reads what comes out of that; else a box of its own."""
        first = inputs[0]
        if not self.open(first, "convolution", "norm", "sum", "concatenate"):
            self.box(node, inputs, Box(operation, then=(name,)))
            return
        number = self.number(first)
        self.boxes[number] = replace(self.boxes[number], then=(*self.boxes[number].then, name))
        self.pass_on(node, first)

    def open(self, node: fx.Node, *operations: str) -> bool:
        return node not in self.shared and self.boxes[self.number(node)].operation in operations

    def pass_on(self, node: fx.Node, source: fx.Node) -> None:
        self.at[node] = self.at[source]
        if source in self.shared:
            self.shared.add(node)

    def number(self, node: fx.Node) -> int:
        number = self.at[node]
        assert number is not None
        return number

    def box(self, node: fx.Node, inputs: list[fx.Node], box: Box) -> None:
        self.arrows += [(self.number(n), len(self.boxes)) for n in inputs]
        self.at[node] = len(self.boxes)
        self.boxes.append(box if box.shape else replace(box, shape=tuple(node.meta["shape"])))


def _convolution(conv: ConvShape) -> Box:
    g = conv.geometry
    channels = (conv.in_channels, conv.out_channels)
    return Box("convolution", channels=channels, kernel=g.kernel, stride=g.stride, groups=conv.groups)


def _each(value: Any) -> tuple[int, ...] | None:
    return value if value is None or isinstance(value, tuple) else (value, value)
