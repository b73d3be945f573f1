"""Which way is faster, by the clock: of a lone convolution our kernels or stock PyTorch, of two networks which one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..measure import measure_latency, ratio
from ..nn import FusedBlock
from ..ops.fused_block import fused_block, runs_compiled, stock_operations
from .blocks import Block, Size

ROUNDS, SECONDS = 7, 0.05  # for both ways together, where that is more than one round
# Within a row of our layers a convolution costs less than alone: it needs no call, and what it reads is still in cache.
# One that takes up to so many times as long as PyTorch's when alone is tried there first.
NEARLY = 1.6


def set_ways(blocks: Sequence[Block], sizes: Mapping[fx.Node, Size]) -> dict[str, float]:
    """Leave to stock operations those lone convolutions that they compute faster.

    sizes      of the values that the blocks read
    returns    the name of each of them -> time of the compiled kernels over theirs
    The blocks stay what they are, so that the weights of a network bear the same names on every machine.
    """
    slower: dict[str, float] = {}
    known: dict[Any, float] = {}
    for block in blocks:
        layer = block.layer
        if block.depthwise or not isinstance(layer, FusedBlock):
            continue
        inputs = [sizes[node] for node in block.inputs]
        kind = (str(layer), layer.geometry, *inputs)
        if kind not in known:
            known[kind] = _ratio(layer, inputs)
        layer.stock = known[kind] > 1
        if layer.stock:
            slower[block.name] = known[kind]
    return slower


@torch.inference_mode()
def is_faster(network: nn.Module, than: nn.Module, x: Tensor) -> bool:
    """Whether a network takes less time on x than another one that computes the same."""
    timings = measure_latency({"this": lambda: network(x), "that": lambda: than(x)}, ROUNDS, warmup=1)
    return ratio(timings["this"], timings["that"]).median < 1


@torch.inference_mode()
def _ratio(layer: FusedBlock, inputs: Sequence[Size]) -> float:
    """Time of the layer over that of the stock operations; 1 where it takes those itself."""
    random = torch.Generator().manual_seed(0)
    weight = layer.pointwise
    tensors = [
        torch.randn(size, generator=random).to(weight).contiguous(memory_format=torch.channels_last) for size in inputs
    ]
    if not runs_compiled(*tensors, weight):
        return 1.0

    def run(way: Callable[..., Tensor]) -> Callable[[], Tensor]:
        return lambda: layer.by(way, *tensors)

    ways = {"ours": run(fused_block), "stock": run(stock_operations)}
    once = measure_latency(ways, 1, warmup=1)
    seconds = sum(timing.median_ms for timing in once.values()) / 1000
    rounds = min(ROUNDS, int(SECONDS / seconds))
    timings = measure_latency(ways, rounds, warmup=0) if rounds > 1 else once
    return ratio(timings["ours"], timings["stock"]).median
