"""Time several callables against each other: warm-up, rounds in rotating order, median and quartiles."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import SepwiseError
from .trace import Example, evaluating

# How far apart rounding may take two ways to compute a network; of other dtypes 1e-3.
TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
MEMORY_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements, in the unit of `values`."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """(low, high); both the median when there is one value only."""
        if len(self.values) < 2:
            return (self.median, self.median)
        low, _, high = quantiles(self.values, n=4, method="inclusive")
        return (low, high)


@dataclass(frozen=True)
class Timing:
    """One callable, timed once a round.

    rounds_ms    milliseconds of each round, in order; the same round of two Timings ran side by side
    threads      PyTorch's threads while it ran
    """

    rounds_ms: tuple[float, ...]
    threads: int

    @property
    def median_ms(self) -> float:
        return Spread(self.rounds_ms).median

    @property
    def quartiles_ms(self) -> tuple[float, float]:
        return Spread(self.rounds_ms).quartiles

    def to_dict(self) -> dict[str, Any]:
        low, high = self.quartiles_ms
        return {
            "median_ms": self.median_ms,
            "low_ms": low,
            "high_ms": high,
            "rounds": len(self.rounds_ms),
            "threads": self.threads,
        }

    def __str__(self) -> str:
        low, high = self.quartiles_ms
        rounds, threads = len(self.rounds_ms), self.threads
        return f"{self.median_ms:.2f} ms (quartiles {low:.2f}-{high:.2f}, {rounds} rounds, {threads} threads)"


def measure_latency(
    calls: Mapping[str, Callable[[], object]],
    rounds: int = 20,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time callables interleaved: every round runs each of them once, and each round starts with the next one.

    Interleaving lets a slow moment of the machine fall on all of them; rotation gives none the first place.
    rounds    measurements of each; warmup rounds run before and are thrown away
    clock     seconds; another one only in tests
    returns   a Timing for each name

    >>> timings = measure_latency({"a": lambda: sum(range(1000)), "b": lambda: None}, rounds=5, warmup=1)
    >>> len(timings["a"].rounds_ms), fastest(timings)
    (5, 'b')
    """
    if not calls or rounds < 1 or warmup < 0:
        raise SepwiseError(
            f"measure_latency: {len(calls)} callables, rounds={rounds}, warmup={warmup}: expected at least one "
            "callable, rounds >= 1 and warmup >= 0"
        )
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warmup, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = clock()
            calls[name]()
            taken = clock() - start
            if number >= 0:
                seconds[name].append(taken)
    threads = torch.get_num_threads()
    return {name: Timing(tuple(1e3 * s for s in seconds[name]), threads) for name in names}


def fastest(timings: Mapping[str, Timing]) -> str:
    """The name with the smallest median."""
    return min(timings, key=lambda name: timings[name].median_ms)


def ratio(slow: Timing, fast: Timing) -> Spread:
    """How many times longer `slow` takes than `fast`: the ratio within each round, so that drift cancels.

    >>> ratio(Timing((2.0, 4.0, 9.0), 1), Timing((1.0, 2.0, 3.0), 1)).median
    2.0
    """
    if len(slow.rounds_ms) != len(fast.rounds_ms):
        raise SepwiseError(
            f"ratio: {len(slow.rounds_ms)} rounds against {len(fast.rounds_ms)}: both must come from one measurement"
        )
    return Spread(tuple(s / f for s, f in zip(slow.rounds_ms, fast.rounds_ms, strict=True)))


def stock_forms(
    model: nn.Module, example: Example, compiled: bool = False, tolerance: float | None = None
) -> dict[str, Callable[[], object]]:
    """The ways stock PyTorch can run a model, each checked against the model itself; the fastest is its fair time.

    compiled     True: also `torch.compile`, which takes half a minute or more
    tolerance    largest |difference| allowed, relative to the largest |output|; None: what `check_same` allows
    returns      "eager contiguous", "eager channels_last" (four or five axes), "compiled ...": callables on copies;
                 without channels_last where PyTorch cannot run the model so, as with a `view` of its pictures
    Raises SepwiseError when a form gives another output: a wrong answer is not timed.

    >>> sorted(stock_forms(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8)))
    ['eager channels_last', 'eager contiguous']
    """
    inputs = example if isinstance(example, tuple) else (example,)
    with evaluating(model):
        expected = model(*inputs)
    axes = max((t.ndim for t in inputs if isinstance(t, Tensor)), default=0)
    layouts = {"contiguous": torch.contiguous_format}
    if axes in MEMORY_FORMATS:
        layouts["channels_last"] = MEMORY_FORMATS[axes]
    forms: dict[str, Callable[[], object]] = {}
    for name, layout in layouts.items():
        laid = copy.deepcopy(model)
        for module in laid.modules():
            module.training = False  # not .eval(): exported modules refuse it
        _lay_out(laid, layout)
        arguments = tuple(_in_layout(t, layout) for t in inputs)
        forms[f"eager {name}"] = _runner(laid, arguments)
        if compiled:
            forms[f"compiled {name}"] = _runner(torch.compile(laid), arguments)
    for name, run_form in list(forms.items()):
        try:
            found = run_form()
        except RuntimeError:
            if name.endswith("contiguous"):
                raise
            del forms[name]
            continue
        check_same(f"the form {name!r}", found, expected, tolerance)
    return forms


def check_same(what: str, outputs: Any, expected: Any, tolerance: float | None = None) -> None:
    """Raise SepwiseError unless every tensor of `outputs` is within `tolerance` of `expected`, relative to its peak.

    tolerance    None: 1e-3, of float16 1e-2, of bfloat16 5e-2
    """
    found = [t for t in tree_leaves(outputs) if isinstance(t, Tensor)]
    wanted = [t for t in tree_leaves(expected) if isinstance(t, Tensor)]
    if [t.shape for t in found] != [t.shape for t in wanted]:
        raise SepwiseError(
            f"refusing to time {what}: it returns {[tuple(t.shape) for t in found]}, "
            f"expected {[tuple(t.shape) for t in wanted]}"
        )
    for x, y in zip(found, wanted, strict=True):
        if not y.numel():
            continue
        peak, gap = float(y.double().abs().max()), float((x.double() - y.double()).abs().max())
        accepted = TOLERANCES.get(y.dtype, 1e-3) if tolerance is None else tolerance
        if not gap <= accepted * max(peak, torch.finfo(torch.float32).tiny):
            raise SepwiseError(
                f"refusing to time {what}: its output differs by {gap:.3g} where the largest value is {peak:.3g}; "
                "a wrong answer is not worth timing"
            )


def _lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    axes = 5 if layout is torch.channels_last_3d else 4
    for parameter in model.parameters():
        if layout is torch.contiguous_format or parameter.ndim == axes:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def _in_layout(value: Any, layout: torch.memory_format) -> Any:
    if not isinstance(value, Tensor) or (
        layout is not torch.contiguous_format and MEMORY_FORMATS.get(value.ndim) is not layout
    ):
        return value
    return value.contiguous(memory_format=layout)


def _runner(model: Callable[..., object], arguments: tuple[Any, ...]) -> Callable[[], object]:
    def run_once() -> object:
        with torch.inference_mode():
            return model(*arguments)

    return run_once
