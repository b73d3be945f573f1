"""The pairs of blocks that are one function, each with its maps, and the named cases that hold them to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from sepwise.nn import blocks
from sepwise.nn.blocks import carried


@dataclass(frozen=True)
class Case:
    """One block: (2, in_channels, 7, 6) -> out_channels."""

    name: str
    in_channels: int = 4
    out_channels: int = 6
    multiplier: int = 1
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


CASES = [
    Case("plain"),
    Case("stride 2", settings={"stride": 2}),
    Case("5 x 5", settings={"kernel_size": 5, "activation": "gelu"}),
    Case("as many channels out as in", 6, 6),
    Case("fewer channels out", 12, 4),
    Case("one channel", 1, 1),
    Case("one channel in", 1, 4),
    Case("multiplier 2", multiplier=2),
    Case("multiplier 3, 5 x 5, stride 2", 6, 6, 3, {"stride": 2, "kernel_size": 5}),
    Case("with bias, no norm", settings={"norm": None, "activation": "silu"}),
    Case("with bias and norm", settings={"bias": True}),
    Case("no bias, no norm, no activation", settings={"norm": None, "bias": False, "activation": None}),
    Case("norm of each picture", settings={"norm": partial(nn.InstanceNorm2d, affine=True, track_running_stats=True)}),
]


@dataclass(frozen=True)
class Pair:
    """Two drawings: a block of the first class, the map to the second and its inverse."""

    name: str
    first: type[nn.Module]
    there: Callable[[Any], nn.Module]
    back: Callable[[Any], nn.Module]
    own: Callable[[Case], dict[str, Any]]

    def __str__(self) -> str:
        return self.name

    def block(self, case: Case) -> nn.Module:
        """A block of the first class in float64, every weight and statistic random."""
        own = {"out_channels": case.out_channels, "activation": "elu", **case.settings, **self.own(case)}
        block = self.first(case.in_channels, **own).double()
        for name, tensor in block.state_dict().items():
            if name.endswith("num_batches_tracked"):
                tensor.fill_(3)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            else:
                tensor.normal_(0, 0.5)
        return block


def _separable(identity: bool, between: Any = None) -> Callable[[Case], dict[str, Any]]:
    norm = "same" if between else None
    return lambda case: {
        "depth_multiplier": case.multiplier, "identity": identity, "between": between, "between_norm": norm
    }  # fmt: skip


def _inception(case: Case) -> dict[str, Any]:
    segments = 3 if case.out_channels % 3 == 0 else 1 if case.out_channels == 1 else 2
    return {"segments": segments, "mid_channels": case.out_channels * case.multiplier}


def _resnext(identity: bool) -> Callable[[Case], dict[str, Any]]:
    return lambda case: {"cardinality": 3, "width_per_group": case.multiplier, "identity": identity}


def _bare(case: Case) -> dict[str, Any]:
    out, bias = case.out_channels, False if case.settings.get("bias") is False else None
    steps = {"segments": out, "mid_channels": out * case.multiplier, "between": None, "between_norm": None}
    return {**steps, "norm": None, "activation": None, "bias": bias}


def _without_identity(case: Case) -> dict[str, Any]:
    return {"depth_multiplier": case.multiplier}


def _grouped(drawing: Any) -> Callable[[Any], nn.Module]:
    return lambda block: blocks.from_grouped(block, drawing)


PAIRS = [
    Pair("depthwise = grouped, groups = channels", blocks.SegmentedBlock, blocks.as_grouped,
         _grouped(blocks.SegmentedBlock), lambda case: {"out_channels": case.in_channels * case.multiplier}),
    Pair("segments = grouped", blocks.SegmentedBlock, blocks.as_grouped, _grouped(blocks.SegmentedBlock),
         lambda case: {"groups": gcd(case.in_channels, case.out_channels)}),
    Pair("split sum = separable", blocks.SplitSum, blocks.as_separable, blocks.as_split_sum, _without_identity),
    Pair("separable with norm and activation between = split sum", blocks.SeparableBlock, blocks.as_split_sum,
         blocks.as_separable, _separable(False, "same")),
    Pair("hybrid = its reformulation", blocks.Hybrid, blocks.as_hybrid_reformulated, blocks.as_hybrid,
         _separable(True)),
    Pair("hybrid with norm and activation between = its reformulation", blocks.Hybrid, blocks.as_hybrid_reformulated,
         blocks.as_hybrid, _separable(True, "same")),
    Pair("hybrid without identity = separable", blocks.Hybrid, blocks.as_separable, blocks.as_hybrid,
         _separable(False)),
    Pair("hybrid without identity = split sum", blocks.Hybrid, blocks.as_split_sum, blocks.as_hybrid,
         _separable(False)),
    Pair("hybrid = separable with identity", blocks.Hybrid, blocks.as_separable, blocks.as_hybrid, _separable(True)),
    Pair("simplified = reformulated Inception", blocks.SimplifiedInception, blocks.as_reformulated,
         blocks.as_simplified, _inception),
    Pair("reformulated = grouped Inception", blocks.ReformulatedInception, blocks.as_grouped,
         _grouped(blocks.ReformulatedInception), _inception),
    Pair("simplified = grouped Inception", blocks.SimplifiedInception, blocks.as_grouped,
         _grouped(blocks.SimplifiedInception), _inception),
    Pair("extreme = grouped Inception", blocks.ExtremeInception, blocks.as_grouped, _grouped(blocks.ExtremeInception),
         lambda case: {}),
    Pair("a segment for each channel = blueprint", blocks.ReformulatedInception, blocks.as_blueprint,
         blocks.from_blueprint, _bare),
    Pair("ResNeXt 3a = 3c", blocks.ResNeXtPaths, blocks.as_grouped, _grouped(blocks.ResNeXtPaths), _resnext(True)),
    Pair("ResNeXt 3b = 3c", blocks.ResNeXtConcatenated, blocks.as_grouped, _grouped(blocks.ResNeXtConcatenated),
         _resnext(True)),
    Pair("ResNeXt 3a = 3b", blocks.ResNeXtPaths, _grouped(blocks.ResNeXtConcatenated), _grouped(blocks.ResNeXtPaths),
         _resnext(False)),
]  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What a block gives for one input: its output, the gradients of one loss, and its buffers afterwards."""

    output: Tensor
    input_gradient: Tensor
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]


def answer(block: nn.Module, x: Tensor) -> Answer:
    """Run the block forth and back; the loss is a fixed random weighting of the output."""
    x = x.clone().requires_grad_()
    block.zero_grad()
    y = block(x)
    generator = torch.Generator().manual_seed(1)
    (y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum().backward()
    assert x.grad is not None
    gradients = {name: p.grad.clone() for name, p in block.named_parameters() if p.grad is not None}
    return Answer(y.detach(), x.grad, gradients, {name: b.clone() for name, b in block.named_buffers()})


def difference(block: nn.Module, twin: nn.Module, x: Tensor) -> tuple[float, float]:
    """Largest differences of outputs (with the buffers afterwards) and of gradients, carried from block to twin."""
    here, there = answer(block, x), answer(twin, x)
    outputs = largest({"": here.output}, {"": there.output})
    buffers = largest(carried(here.buffers, block, twin), there.buffers)
    inputs = largest({"": here.input_gradient}, {"": there.input_gradient})
    return max(outputs, buffers), max(inputs, largest(carried(here.gradients, block, twin), there.gradients))


def largest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference between tensors of the same names."""
    assert found.keys() == expected.keys()
    assert all(found[name].shape == expected[name].shape for name in found)
    return max((float((found[name] - expected[name]).abs().max()) for name in found), default=0.0)
