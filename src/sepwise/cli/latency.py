"""How long the networks of a conversion take: dense and separable in stock PyTorch, and separable fused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import records
from ..errors import ModelError
from ..fusion import FusedNetwork, FusionReport, fuse
from ..fusion.stock import stock_calls
from ..measure import Timing, fastest, measure_latency, ratio
from ..ops import keep_freed_memory

TRIALS = 2
ROUNDS = (10, 100)  # at least and at most: short calls are disturbed by whatever else runs
SECONDS = 2.0  # for all rounds, where that is more than the least


@dataclass(frozen=True)
class Latency:
    """A separable network against the dense one, timed in the same rounds.

    dense, separable    each in its fastest stock form: its name and its timing
    fused               the fused network, and what was fused; or the sentence why there is none
    """

    size: list[int]
    dense: tuple[str, Timing]
    separable: tuple[str, Timing]
    fused: tuple[FusionReport, Timing] | str

    @property
    def stock_ratio(self) -> float:
        """How many times faster than the dense network the separable one is, each in its fastest stock form."""
        return ratio(self.dense[1], self.separable[1]).median

    @property
    def fused_ratio(self) -> float | None:
        """The same of the fused network; None when there is none."""
        return None if isinstance(self.fused, str) else ratio(self.dense[1], self.fused[1]).median

    def facts(self) -> Iterator[records.Record]:
        """How many times faster than the dense network: the separable one, and the fused one."""
        form, timing = self.separable
        yield self._fact("network.latency_ratio", timing, {"separable_form": form})
        if isinstance(self.fused, str):
            yield records.here("network.fused_latency_ratio", None, unit="x", about={"why": self.fused})
            return
        report, timing = self.fused
        counts = {"pairs": len(report.fused), "left": len(report.left), "difference": report.difference}
        yield self._fact("network.fused_latency_ratio", timing, counts)

    def _fact(self, what: str, timing: Timing, about: dict[str, Any]) -> records.Record:
        dense_form, dense = self.dense
        speed = ratio(dense, timing)
        low, high = speed.quartiles
        told = {"dense_form": dense_form, **about, "threads": timing.threads, "size": self.size}
        told |= {"spread": "interquartile range", "dense_ms": dense.median_ms, "median_ms": timing.median_ms}
        return records.here(what, speed.median, unit="x", n=len(speed.values), spread=high - low, about=told)


def latency(dense: nn.Module, separable: Mapping[str, nn.Module], x: Tensor) -> dict[str, Latency]:
    """Time all networks interleaved, each in its fastest stock form, and the separable ones fused as well.

    separable    networks by name
    returns      by the same names
    """
    keep_freed_memory()  # as `fuse` does; the dense network gains from it, too
    networks = {"dense": dense, **separable}
    calls = {f"{name} {form}": run for name, net in networks.items() for form, run in stock_calls(net, x).items()}
    fused = {name: _fused(network, x) for name, network in separable.items()}
    trials = measure_latency(calls, rounds=TRIALS, warmup=1)
    best = {name: fastest({n: t for n, t in trials.items() if n.startswith(f"{name} ")}) for name in networks}
    chosen = {name: calls[best[name]] for name in best}
    chosen |= {f"fused {name}": runner(f, x) for name, f in fused.items() if isinstance(f, FusedNetwork)}
    timings = _timed(chosen)
    stock = {name: (best[name].removeprefix(f"{name} "), timings[name]) for name in best}
    return {
        name: Latency(
            list(x.shape[2:]),
            stock["dense"],
            stock[name],
            (f.report, timings[f"fused {name}"]) if isinstance(f, FusedNetwork) else f,
        )
        for name, f in fused.items()
    }


def fused_latency(
    networks: Mapping[str, nn.Module], inputs: Mapping[str, Tensor], fused: FusedNetwork
) -> tuple[dict[str, Timing], Timing]:
    """All stock forms of some networks, by "network, form", and the fused network, in the same rounds.

    inputs    by the names of the networks; the fused one reads the last
    """
    stock = {name: stock_calls(network, inputs[name]) for name, network in networks.items()}
    calls = {f"{name}, {form}": run for name, forms in stock.items() for form, run in forms.items()}
    *_, x = inputs.values()
    timings = _timed({**calls, "fused": runner(fused, x)})
    return timings, timings.pop("fused")


def _timed(calls: Mapping[str, Callable[[], object]]) -> dict[str, Timing]:
    once = measure_latency(calls, rounds=1, warmup=1)
    seconds = sum(timing.median_ms for timing in once.values()) / 1000
    return measure_latency(calls, rounds=max(ROUNDS[0], min(ROUNDS[1], round(SECONDS / seconds))), warmup=1)


def _fused(separable: nn.Module, x: Tensor) -> FusedNetwork | str:
    try:
        return fuse(separable, x)
    except ModelError as error:
        return str(error)


def runner(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """A call of a network as `fuse` runs it: laid out in channels_last, without gradients."""
    laid = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    def run_once() -> object:
        with torch.inference_mode():
            return model(laid)

    return run_once
