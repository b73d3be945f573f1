"""`fuse`: a network whose depthwise-pointwise chains run as one operation each, with the same outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..errors import ModelError, UnsupportedError
from ..graph.fold import fold_norms
from ..graph.network import is_exported, trace
from ..graph.sameness import answer, judged
from ..ops import keep_freed_memory
from .activation import activations_of
from .blocks import Block, find_blocks, sizes_of
from .chains import find_chains
from .changes import count_together
from .lifting import lift_steps
from .opening import open_layers
from .parallel import merge_parallel
from .pixelwise import write_pixelwise
from .programs import Rowed, programmed, rows_of
from .scales import write_scales
from .timed import NEARLY, is_faster, set_ways


@dataclass(frozen=True)
class FusionReport:
    """What `fuse` did; `print` it.

    fused          name of the depthwise convolution -> what its layer computes now, in the order in which they run
    alone          name -> the same of other convolutions, with the shortcut and the activation after them
    slower         name -> time of our kernels over PyTorch's on the example, for those of them that PyTorch keeps
    left           name -> one sentence, for depthwise convolutions and separable layers that stay as they are
    merged         name -> the convolutions and normalizations beside it that it stands for now: they read what it read
                   and were added to it
    norms          how many normalizations were folded into the convolution before them
    difference     largest |fused - original| on the example, relative to the largest |original|; the worst output
    budget         the largest difference that would have been accepted
    """

    fused: dict[str, str]
    alone: dict[str, str]
    slower: dict[str, float]
    left: dict[str, str]
    merged: dict[str, list[str]]
    norms: int
    difference: float
    budget: float

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain types."""
        return asdict(self)

    def __str__(self) -> str:
        together = len(self.fused) + len(self.left)
        lines = [f"{len(self.fused)} of {together} depthwise or separable convolutions run as one operation each"]
        if not together:
            lines = ["there is no depthwise or separable convolution"]
        width = max(map(len, (*self.fused, *self.alone, *self.left)), default=0)
        lines += [f"  {name:{width}}  {what}" for name, what in self.fused.items()]
        if self.alone:
            lines.append("other convolutions by the same kernels, which are faster here:")
            lines += [f"  {name:{width}}  {what}" for name, what in self.alone.items()]
        if self.slower:
            lines.append(f"left to PyTorch, which is faster there: {', '.join(self.slower)}")
        if self.left:
            lines.append("left as they are:")
            lines += [f"  {name:{width}}  {why}" for name, why in self.left.items()]
        if self.merged:
            lines.append(f"{len(self.merged)} sums of parallel layers written as one convolution each")
        lines.append(f"{self.norms} normalizations folded into the convolutions before them")
        lines.append(
            f"outputs on the example differ by {self.difference:.1e} of the largest (accepted: {self.budget:.0e})"
        )
        return "\n".join(lines)


class FusedNetwork(Rowed):
    """What `fuse` returns: called like the original, for inference; its parameters require no gradients.

    network          the computation, a `torch.fx.GraphModule`; modules keep their names
    memory_format    of the weights, and what an input is brought into first; None: inputs are taken as they come
    report           FusionReport
    rows             the same computation by the same modules with rows of layers as one call; None: there are no rows
    """

    def __init__(
        self,
        network: fx.GraphModule,
        memory_format: torch.memory_format | None,
        report: FusionReport,
        rows: nn.Module | None = None,
    ) -> None:
        super().__init__(network, rows, memory_format)
        self.report = report


def fuse(
    model: nn.Module,
    example: Tensor,
    *,
    memory_format: torch.memory_format = torch.channels_last,
    dtype: torch.dtype | None = None,
) -> FusedNetwork:
    """Run every depthwise-pointwise pair of a network as one operation, with the same outputs.

        (pointwise -> (norm) -> (activation)) -> depthwise -> (norm) -> (activation) -> pointwise -> (norm)
            -> (+ shortcut) -> (activation)             becomes one nn.FusedBlock, or one nn.SeparableConv2d

    Other convolutions are timed on the example and run by our kernels where these are faster. Found by structure in the
    graph of the model, with what `convert` made; normalizations are folded into the weights. What cannot be fused stays
    as it is, and `report` says why. From now on the process keeps memory that it frees
    (`sepwise.keep_freed_memory`): large pictures would else spend more time on new memory than on convolutions.

    model            in evaluation mode; left unchanged
    example          an input (N, C, *size) with numbers in it: a picture, or noise. The fused network must answer it as
                     the model does; other sizes and batches may follow
    memory_format    of weights and pictures: channels_last, or contiguous_format for a model that needs its views
    dtype            of its weights, inputs and outputs, such as torch.bfloat16; None: that of the model. Weights are
                     rounded once, after normalizations were folded into them, so this is more exact than to fuse
                     `model.bfloat16()`
    returns          FusedNetwork, an `nn.Module`; its outputs are laid out in that memory format, too
    Raises ModelError when the model is in training mode, cannot be followed or run, would answer differently, or has
    weights that `dtype` cannot hold.

    >>> model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 16, 1)).eval()
    >>> fused = fuse(model, torch.randn(1, 8, 9, 9))
    >>> fused.report.fused
    {'0': 'depthwise 3x3, relu6, pointwise 8 to 16'}
    """
    if memory_format not in (torch.channels_last, torch.contiguous_format):
        raise UnsupportedError(
            f"fuse: memory_format={memory_format}: give torch.channels_last or torch.contiguous_format"
        )
    if dtype is not None and not dtype.is_floating_point:
        raise UnsupportedError(f"fuse: dtype={dtype}: give a floating point type, torch.bfloat16 for instance")
    keep_freed_memory()
    source = model.network if isinstance(model, FusedNetwork) else model
    _check_evaluating(source)
    traced = trace(source, example, inside=(nn.Linear, nn.LayerNorm))
    lift_steps(traced)
    norms = fold_norms(traced)
    merged = merge_parallel(traced)
    write_scales(traced)
    write_pixelwise(traced)
    norms += fold_norms(traced)  # those that follow what was merged or written anew
    open_layers(traced)
    chains, left = find_chains(traced)
    network, x = traced.graph, example
    sizes = sizes_of(network, x)
    blocks = find_blocks(traced, chains, sizes)
    if dtype is not None:
        x = example.to(dtype)
        for module, name in (network, ""), *((block.layer, f"{block.name}.") for block in blocks):
            _cast(module, dtype, name)
    slower = set_ways(blocks, sizes)
    written: dict[fx.Node, fx.Node] = {}
    for block in blocks:
        written[block.nodes[-1]] = _replace(network, block, written)
    _tidy(network)
    laid = memory_format if example.dim() == 4 else None
    if laid is not None:
        network.to(memory_format=laid)  # type: ignore[call-overload]
    network.requires_grad_(False)
    found, rows = _compare(model, network, laid, example, x), None
    if laid is torch.channels_last:
        rows = _rows(network, x.contiguous(memory_format=torch.channels_last), slower)
    if rows is not None:
        found = max(found, _compare(model, rows, laid, example, x))
    fused, alone = ({b.name: b.says for b in blocks if b.depthwise is kind} for kind in (True, False))
    alone = {name: says for name, says in alone.items() if name not in slower}
    report = FusionReport(fused, alone, slower, left, merged, len(norms), *found)
    return FusedNetwork(network, laid, report, rows).eval()


def _cast(module: nn.Module, dtype: torch.dtype, prefix: str) -> None:
    for name, weight in module.named_parameters():
        if bool(weight.isfinite().all() & ~weight.to(dtype).isfinite().all()):
            raise ModelError(
                f"fuse: {prefix}{name} holds numbers above {torch.finfo(dtype).max:.3g}, the largest of {dtype}; "
                "torch.bfloat16 has the range of torch.float32"
            )
    module.to(dtype)


def _rows(network: fx.GraphModule, example: Tensor, slower: dict[str, float]) -> nn.Module | None:
    """The network with rows of layers as one call each; None where there are none.

    slower    layers left to PyTorch: those that turn out faster in a row are taken from it and set to our kernels
    """
    sizes, one = sizes_of(network, example), count_together(network)
    best = programmed(network, sizes, slower, one)
    for most in (NEARLY, inf):
        tried = [name for name, ratio in slower.items() if ratio < most]
        longer = programmed(network, sizes, {*slower} - {*tried}, one) if tried else None
        faster = longer is not None and is_faster(longer, network if best is None else best, example)
        for row in (*rows_of(best), *rows_of(longer)):
            row.forget()  # what is not kept lives until the garbage is collected
        if not faster:
            continue
        best = longer
        for name in tried:
            del slower[name]
            network.get_submodule(name).stock = False  # type: ignore[assignment]
    return best


def _check_evaluating(model: nn.Module) -> None:
    if is_exported(model):
        assert isinstance(model, fx.GraphModule)
        trains = any(_trains(node) for node in model.graph.nodes)  # flags of exported modules say nothing
        if trains:
            raise ModelError("fuse: the program was exported in training mode; call model.eval() before the export")
        return
    training = [name for name, module in model.named_modules() if module.training]
    if training:
        where = "the model" if training[0] == "" else f"its module {training[0]}"
        raise ModelError(
            f"fuse: {where} is in training mode, in which normalization follows each batch; call model.eval() first"
        )


def _trains(node: fx.Node) -> bool:
    place = {torch.ops.aten.batch_norm.default: 5, torch.ops.aten.dropout.default: 2}.get(node.target)  # type: ignore
    return place is not None and len(node.args) > place and node.args[place] is True


def _replace(graph: fx.GraphModule, block: Block, written: Mapping[fx.Node, fx.Node]) -> fx.Node:
    """Call the layer of a block instead of its nodes. `written`: what was called instead of nodes so far."""
    last = block.nodes[-1]
    graph.set_submodule(block.name, block.layer)
    with graph.graph.inserting_before(last):
        call = graph.graph.call_module(block.name, tuple(written.get(node, node) for node in block.inputs))
    last.replace_all_uses_with(call)
    for node in reversed(block.nodes):
        graph.graph.erase_node(node)
    return call


def _tidy(network: fx.GraphModule) -> None:
    """Remove what does nothing or is not used, and let values lie in any memory format."""
    for node in list(network.graph.nodes):
        if activations_of(network, node) == []:
            node.replace_all_uses_with(node.all_input_nodes[0])
            network.graph.erase_node(node)
        elif node.op == "call_method" and node.target == "view" and not isinstance(node.args[-1], torch.dtype):
            node.target = "reshape"  # the same numbers, where `view` demands contiguous memory
        elif node.op == "call_function" and node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.graph.lint()
    network.recompile()
    for name in ("train", "eval"):  # exported programs replace them by refusals; here they do no harm
        network.__dict__.pop(name, None)


def _compare(
    model: nn.Module, network: nn.Module, memory_format: torch.memory_format | None, example: Tensor, x: Tensor
) -> tuple[float, float]:
    """Difference and budget of the outputs on the example. Raises ModelError where the first exceeds the second.

    x    the example in the dtype of the fused network
    """
    wanted = answer(model, example, "fuse: the model cannot run on the example")
    what, laid = "fuse: the fused network cannot run on the example", x
    if x.dtype is not example.dtype:
        what += f" in {x.dtype}"
    if memory_format is not None:
        what += f" in {memory_format} (a module may depend on its layout: give the other memory_format)"
        laid = x.contiguous(memory_format=memory_format)
    gap, budget = judged(answer(network, laid, what), wanted, model, example)
    if not gap <= budget:
        raise ModelError(
            f"fuse: the fused network would answer differently: by {gap:.1e} of the largest value on the example, "
            f"where {budget:.0e} can be rounding"
        )
    return gap, budget
