"""Rows of layers in a fused network that the compiled core runs in one call each, beside the network as it is."""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, fx, nn
from torch.autograd import forward_ad
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase
from torch.utils.hooks import RemovableHandle

from ..ops.fused_block import runs_compiled
from ..ops.program import Program
from ..ops.separable_conv2d.cpu import precision_asked
from .blocks import Size
from .changes import Changes, Parameters, count_together
from .program_steps import Known, Made, layer_of, note, read_by, steps_of

_KIND = operator.attrgetter("dtype", "shape", "is_cpu")
KEPT = 8  # programs of one row of layers, for inputs of as many sizes


def programmed(
    network: fx.GraphModule, sizes: Mapping[fx.Node, Size], stock: Collection[str], one: Tensor | None
) -> nn.Module | None:
    """The same network with every row of at least two such layers as one call; None where there is none.

    sizes      of the values of the graph
    stock      names of layers left to stock operations
    one        what `count_together` gave for it
    returns    a network that shares its modules with `network`; the row itself where there is nothing else
    """
    shapes = {node.name: size for node, size in sizes.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 asks itself for what it deprecates
        shared = fx.GraphModule(network, copy.deepcopy(network.graph))
    known: dict[fx.Node, Known] = {}
    for node in shared.graph.nodes:
        read = read_by(node)
        if {*read} == {*node.all_input_nodes} and str(node.target) not in stock and node.name in shapes:
            note(shared, node, known, {n: shapes[n.name] for n in read if n.name in shapes})
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
                note(shared, node, within, {n: shapes[n.name] for n in read_by(node) if n not in nodes})
        return len(within) == len(nodes) and sum(layer_of(shared, n) is not None for n in nodes) > 1

    partitioner = CapabilityBasedPartitioner(shared, Supported(), allows_single_node_partition=True)
    partitions = [p for p in partitioner.propose_partitions() if is_row({*p.nodes})]
    known.clear()  # it holds views of weights, and itself lives until the garbage is collected
    if not partitions:
        return None
    found = partitioner.fuse_partitions(partitions, prefix="row_")
    for name, module in list(found.named_children()):
        if name.startswith("row_") and isinstance(module, fx.GraphModule):
            found.set_submodule(name, Row(module, one))
    return _only(found)


def rows_of(network: nn.Module | None) -> list[Row]:
    return [] if network is None else [row for row in network.modules() if isinstance(row, Row)]


class Rowed(nn.Module):
    """A network, computed in rows of layers where nobody follows what it does.

    network          a `torch.fx.GraphModule`
    rows             the same computation by the same modules with rows of layers as one call; None: there are no rows
    memory_format    what an input is brought into first; None: inputs are taken as they come
    """

    def __init__(
        self, network: fx.GraphModule, rows: nn.Module | None, memory_format: torch.memory_format | None = None
    ) -> None:
        super().__init__()
        self.network, self.memory_format = network, memory_format
        self._rows = (rows,)  # in a tuple: its modules are those of `network`

    def _apply(self, *arguments: Any, **named: Any) -> Self:
        self._forget()
        return super()._apply(*arguments, **named)

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        self._forget()
        super()._load_from_state_dict(*arguments, **named)

    def _forget(self) -> None:
        for row in rows_of(*self._rows):
            row.forget()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if rows := rows_of(*self._rows):
            one = count_together(self.network)
            for row in rows:
                row.changes = Changes(row.layers, one)

    def forward(self, x: Tensor) -> Any:
        if self.memory_format is not None:
            x = x.contiguous(memory_format=self.memory_format)
        (rows,) = self._rows
        if rows is None or torch.compiler.is_compiling() or torch._C._is_tracing():
            return self.network(x)
        return rows.forward(x)


def _only(network: fx.GraphModule) -> nn.Module:
    """The row that is all of a network; the network where there is more."""
    given, *called, output = network.graph.nodes
    row = network.get_submodule(str(called[0].target)) if called[0].op == "call_module" else None
    alone = len(called) == 1 and called[0].args == (given,) and output.args == (called[0],)
    return row if isinstance(row, Row) and alone else network


class _Ready(NamedTuple):
    """A program for inputs of some sizes."""

    program: Program
    shapes: list[Size]  # of what it returns
    plain: bool  # whether pictures are all that it is given, and returns one value


def _pictures(given: Sequence[Tensor]) -> list[Tensor]:
    return [x if x.dim() == 4 else x[:, :, None, None] for x in given]


class Row(nn.Module):
    """Layers as a graph, run as one program where the compiled kernels may run; a program for each size of its inputs.

    A program holds weights in an order of its own. It is made anew when they are seen to have changed: other tensors,
    other memory, a change in place that PyTorch counts, or one that it does not count and that reaches their first or
    last numbers.

    one    what `count_together` gave for the network
    """

    def __init__(self, graph: fx.GraphModule, one: Tensor | None = None) -> None:
        super().__init__()
        self.graph = graph
        self.layers = [graph.get_submodule(str(n.target)) for n in graph.graph.nodes if n.op == "call_module"]
        self.changes = Changes(self.layers, one)
        self.forget()

    def forget(self) -> None:
        """All programs, and what was seen of the weights: PyTorch swaps no tensors that programs hold."""
        self._programs: dict[Any, _Ready] = {}
        self._seen: object = None
        self.changes.look_again()

    def forward(self, *given: Tensor) -> Any:
        # The short way calls next to nothing that is written in Python. A call drives the interpreter from the caches,
        # and each of its functions comes back at the price of a small layer.
        look = self.changes.last
        if (
            look.mark is self._seen
            and look.told_by is not None
            and look.told_by._version == look.version
            and look.after is Parameters.last_change
            and look.hooks == RemovableHandle.next_id
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not torch._C._are_functorch_transforms_active()
            and forward_ad._current_level < 0
        ):
            try:
                ready = self._programs.get((torch._C._get_float32_matmul_precision(), *map(_KIND, given)))
            except RuntimeError:  # see precision_asked
                ready = None
            if ready is not None and ready.plain:
                results = ready.program(given)
                if results:
                    (y,), (shape,) = results, ready.shapes
                    return y if y.shape == shape else y.reshape(shape)
        return self._forward(given)

    def _forward(self, given: Sequence[Tensor]) -> Any:
        if not runs_compiled(*given):
            return self.graph(*given)
        mark = self.changes.mark()
        if mark is not self._seen:
            self._programs, self._seen = {}, mark
        programs = self._programs  # of this mark, whatever other threads see meanwhile
        key = precision_asked(compiling=False), *map(_KIND, given)
        for _ in range(2):
            ready = programs.get(key)
            if ready is None:
                ready = self._made(given)
                if ready is None:
                    break
                while len(programs) >= KEPT:
                    programs.pop(next(iter(programs)), None)
                programs[key] = ready
            results = ready.program(_pictures(given))
            if results:
                # Reshaped to the shape that it has, one picture would no longer count as channels_last.
                found = [y if y.shape == s else y.reshape(s) for y, s in zip(results, ready.shapes, strict=True)]
                return found[0] if len(found) == 1 else tuple(found)
            programs.pop(key, None)
        return self.graph(*given)

    def _made(self, given: Sequence[Tensor]) -> _Ready | None:
        """A program for inputs of this size and dtype; None where the graph must run."""
        weights = [*self.parameters()]
        if any(w.dtype != given[0].dtype or (w.requires_grad and torch.is_grad_enabled()) for w in weights):
            return None
        graph = self.graph.graph
        taken = [node for node in graph.nodes if node.op == "placeholder"]  # among the others, where first read
        known = {node: (Made(), tuple(x.shape)) for node, x in zip(taken, given, strict=True)}
        for node in graph.nodes:
            if node.op not in ("placeholder", "output"):
                note(self.graph, node, known, {})
                if node not in known:
                    return None
        (output,) = (node for node in graph.nodes if node.op == "output")
        returned = [known[node] for node in output.all_input_nodes]
        steps, numbers = steps_of([known[node][0] for node in taken], [made for made, _ in returned])
        outputs = [numbers[made] for made, _ in returned]
        if min(outputs) < len(given) or len({*outputs}) < len(outputs):
            return None
        program = Program(_pictures(given), steps, outputs, self.changes.last.weights, self._objects())
        plain = len(returned) == 1 and all(x.dim() == 4 for x in given)
        return _Ready(program, [shape for _, shape in returned], plain)

    def _objects(self) -> list[tuple[int, int]]:
        """What is looked at before a call, (address, bytes): PyTorch's tensors and their storages."""
        weights = self.changes.last.weights
        return [pair for w in weights for pair in ((w._cdata, 192), (w.untyped_storage()._cdata, 64))]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_programs": {}, "_seen": None, "changes": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.changes = Changes(self.layers)
