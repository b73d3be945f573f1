"""Do separable convolutions run faster, and how much of the multiplications saved is time saved?

Claim      G8: separable convolutions run faster.
Measured   For each of eighteen shapes, 16 to 512 channels on pictures of 7 to 224 pixels, batch 1, float32, one thread:
           a dense 3×3 convolution in stock PyTorch, contiguous or channels_last, whichever is faster, against the
           separable one of the same size in stock PyTorch (two convolutions, the faster layout) and in
           `separable_conv2d`. All answers are first checked against the dense convolution that the pair composes to.
           Rounds are interleaved; the ratio is the median of the ratios within rounds. A seed is a repetition, with
           other numbers. Times mean nothing on a machine that is shared; ratios do.
Counts     A shape is faster when the interval of its time ratio over the repetitions lies below 1. The claim holds when
           the faster of the two separable ways is faster in most shapes: Wilson's interval of that share is above one
           half; it does not hold when the interval is below. Not shown: fewer than eight shapes. What
           stock PyTorch alone would say is told beside it.
Records    One more trial reads the records of `./run bench`: pairs of MobileNet, EfficientNet, Xception and others in
           every runtime timed, against a dense convolution at the machine's full rate (`lab.benchmarks`). They judge
           nothing.

With several workers the trials run side by side and share caches: --workers 1 is quieter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import SepwiseError
from ...factor import compose
from ...geometry import ConvShape, Geometry, chain_macs
from ...measure.timing import Timing, check_same, fastest, measure_latency, ratio, stock_forms
from ...ops.separable_conv2d import separable_conv2d
from .. import benchmarks, faster
from ..recipe import Arm, At, Finding, Numbers, Result

SEEDS = {"smoke": 2, "small": 5, "paper": 10}
ROUNDS = {"smoke": 5, "small": 31, "paper": 61}
RECORDS = "records of the benchmarks"
BLOCK = 2e-3  # seconds: a call that takes less is repeated until it fills them
# Channels, in and out -> sides of the pictures.
SHAPES = {
    "smoke": {16: (32,), 64: (16,)},
    "small": {
        16: (32, 112, 224),
        32: (32, 112, 224),
        64: (16, 56, 112),
        128: (14, 28, 56),
        256: (14, 28, 56),
        512: (7, 14, 28),
    },
}


def arms(scale: str) -> list[Arm]:
    shapes = [(c, size) for c, sizes in SHAPES.get(scale, SHAPES["small"]).items() for size in sizes]
    found = [
        Arm(f"{c} channels, {n}×{n}", {"channels": c, "size": n, "rounds": ROUNDS[scale], "threads": 1})
        for c, n in shapes
    ]
    return found if scale == "smoke" else [*found, Arm(RECORDS)]


def trial(settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    if not settings:
        if at.inputs.benchmarks is None:
            raise SepwiseError("the records of the benchmarks are needed: pass --benchmarks, for example bench/results")
        return {"pairs": benchmarks.pairs(at.inputs.benchmarks), "networks": benchmarks.networks(at.inputs.benchmarks)}
    channels, size = settings["channels"], settings["size"]
    with _threads(settings["threads"]):
        calls = _calls(channels, size, seed)
        counts = {name: _repeats(call) for name, call in calls.items()}
        timed = measure_latency({n: _block(calls[n], counts[n]) for n in calls}, settings["rounds"], warmup=2)
    timings = {n: Timing(tuple(ms / counts[n] for ms in t.rounds_ms), t.threads) for n, t in timed.items()}
    best = {way: fastest({n: t for n, t in timings.items() if n.startswith(way)}) for way in ("dense", *faster.WAYS)}
    dense, *steps = _shapes(channels)
    return {
        "multiplications": chain_macs(steps, (size, size)) / dense.macs((size, size)),
        "ratios": {way: ratio(timings[best[way]], timings[best["dense"]]).median for way in faster.WAYS},
        "best": best,
        "times": {name: timing.to_dict() for name, timing in timings.items()},
    }


def findings(results: Sequence[Result]) -> list[Finding]:
    measured = [r for r in results if r.arm != RECORDS]
    told = next((r.numbers for r in results if r.arm == RECORDS), {"pairs": [], "networks": []})
    return [faster.finding(measured, told["pairs"], told["networks"])]


def _shapes(channels: int) -> tuple[ConvShape, ConvShape, ConvShape]:
    """Dense, depthwise, pointwise."""
    around = Geometry.of((3, 3), padding=1)
    depthwise = ConvShape(channels, channels, around, groups=channels)
    return ConvShape(channels, channels, around), depthwise, ConvShape(channels, channels, Geometry.of((1, 1)))


def _calls(channels: int, size: int, seed: int) -> dict[str, Callable[[], object]]:
    """All ways to compute one function, each checked against the dense convolution in stock PyTorch."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(1, channels, size, size, generator=random)
    depthwise = torch.randn(channels, 1, 3, 3, generator=random) / 3
    pointwise = torch.randn(channels, channels, 1, 1, generator=random) / channels**0.5
    dense = _conv(compose([depthwise, pointwise], [channels, 1]).to(x.dtype), 1)
    stock = nn.Sequential(_conv(depthwise, channels), _conv(pointwise, 1))
    laid = x.contiguous(memory_format=torch.channels_last)

    def ours() -> Tensor:
        with torch.inference_mode():
            return separable_conv2d(laid, depthwise, pointwise, padding=1)

    with torch.inference_mode():
        expected = dense(x)
        check_same("two convolutions", stock(x), expected)
    check_same("separable_conv2d", ours(), expected)
    two, one = faster.WAYS
    return {
        **{f"dense, {form}": call for form, call in stock_forms(dense, x).items()},
        **{f"{two}, {form}": call for form, call in stock_forms(stock, x).items()},
        one: ours,
    }


def _conv(weight: Tensor, groups: int) -> nn.Conv2d:
    out, per_group, height, width = weight.shape
    conv = nn.Conv2d(
        per_group * groups, out, (height, width), padding=(height // 2, width // 2), groups=groups, bias=False
    )
    conv.weight.data = weight
    return conv.eval()


def _repeats(call: Callable[[], object]) -> int:
    """How often a call fits into a block, from the faster of a few."""
    seconds = []
    for _ in range(4):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return max(1, ceil(BLOCK / min(seconds)))


def _block(call: Callable[[], object], count: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(count):
            call()

    return run


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
