"""Times measured on this machine: every layer of a survey, dense and as each candidate, and whole networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..fusion.fuse import fuse
from ..fusion.stock import stock_calls
from ..graph.network import copy_of
from ..measure import Timing, measure_latency
from ..ops import keep_freed_memory
from .apply import filled_layer
from .candidates import Candidate, LayerSurvey
from .kept_times import KeptTimes
from .plan import Plan
from .segment import Segment, segments
from .survey import Progress, Survey
from .times import Key, Time, Times

SECONDS = 2.0  # for all candidates of one layer together
ROUNDS = (5, 40)  # at least and at most; the fastest counts, which a busy machine disturbs least


class Clock:
    """Measures a survey's layers and the networks of its plans, batch 1, with the threads that PyTorch has now.

    example    a picture of the size to plan for
    kept       where times of layers are kept between runs
    """

    def __init__(
        self, found: Survey, example: Tensor, kept: KeptTimes | None = None, progress: Progress | None = None
    ) -> None:
        self.found, self.x, self.progress = found, example[:1].detach(), progress
        keep_freed_memory()  # as `fuse` does; the dense network gains from it, too
        self.kept = KeptTimes() if kept is None else kept
        self.segments = {segment.name: segment for segment in segments(found.network, example)}
        self._dense = stock_calls(found.network.model, self.x)

    def times(self) -> Times:
        """Of all layers, those that were kept and those measured now; and of the whole dense network."""
        layers = {}
        for done, layer in enumerate(self.found.layers):
            if self.progress:
                self.progress("time", done, len(self.found.layers))
            keys: list[Key] = [None, *((c.form, c.rank) for c in layer.candidates)]
            layers[layer.name] = self._kept_or_measured(self.segments[layer.name], keys)
        if self.progress:
            self.progress("time", len(layers), len(layers))
        timings = _measured({**self._dense, "fused": self._fused(self.found.network.model)})
        dense_ms, form = min((min(timings[name].rounds_ms), name) for name in self._dense)
        base_ms = min(timings["fused"].rounds_ms)
        return Times(dense_ms, form, base_ms, layers, torch.get_num_threads(), tuple(self.x.shape[2:]))

    def again(self, times: Times, plan: Plan) -> Times:
        """The same times, those of the layers that a plan converts measured anew, whatever was kept."""
        layers = dict(times.layers)
        for name, choice in plan.converted.items():
            assert choice.rank is not None
            fresh = self._measure(self.segments[name], [None, (choice.form, choice.rank)])
            layers[name] = {**layers[name], **fresh}
        return replace(times, layers=layers)

    def measured(self, plan: Plan) -> float:
        """The whole network of a plan, fused, as a fraction of the fastest dense form in the same rounds."""
        timings = _measured({**self._dense, "fused": self._fused(planned_network(self.found, plan))})
        return min(timings["fused"].rounds_ms) / min(min(timings[name].rounds_ms) for name in self._dense)

    def _kept_or_measured(self, segment: Segment, keys: Iterable[Key]) -> dict[Key, Time]:
        words = {key: f"{segment.words} | {_words(key)}" for key in keys}
        times = {key: time for key in words if (time := self.kept.get(words[key])) is not None}
        missing = [key for key in words if key not in times]
        return times | (self._measure(segment, missing) if missing else {})

    def _measure(self, segment: Segment, keys: Iterable[Key]) -> dict[Key, Time]:
        """Interleaved; each call finds its input just written, as by the layer before, and its weights where the
        others' calls left them."""
        source = segment.example()
        if source.dim() == 4:
            source = source.contiguous(memory_format=torch.channels_last)
        x = source.clone()
        runs = {key: segment.fused(key, source) for key in keys}
        fastest = dict.fromkeys(runs, float("inf"))
        rounds, until = 0, 0.0
        with torch.inference_mode():
            while rounds <= ROUNDS[0] or (rounds <= ROUNDS[1] and time.perf_counter() < until):
                for key, (run, _) in runs.items():
                    x.copy_(source)
                    start = time.perf_counter()
                    run(x)
                    taken = time.perf_counter() - start
                    if rounds:  # the first prepares
                        fastest[key] = min(fastest[key], taken)
                if not rounds:
                    until = time.perf_counter() + SECONDS
                rounds += 1
        times = {key: Time(1e3 * fastest[key], kernel) for key, (_, kernel) in runs.items()}
        self.kept.put({f"{segment.words} | {_words(key)}": time for key, time in times.items()})
        return times

    def _fused(self, model: nn.Module) -> Callable[[], object]:
        for module in model.modules():
            module.training = False  # not .eval(): exported modules refuse it; what folding left may be in training
        fused, x = fuse(model, self.x), self.x
        if fused.memory_format is not None:
            x = x.contiguous(memory_format=fused.memory_format)

        def run_once() -> object:
            with torch.inference_mode():
                return fused.network(x)

        return run_once


def planned_network(found: Survey, plan: Plan) -> nn.Module:
    """The surveyed network as a plan has it, with the survey's fits, in a copy of its own.

    Raises ModelError for a plan that asks for what the survey has not seen.
    """
    model, layers = copy_of(found.network.model), {layer.name: layer for layer in found.layers}
    for name, choice in plan.converted.items():
        old = model.get_submodule(name)
        candidate = _candidate(layers[name], choice.form, choice.rank)
        layer = filled_layer(old, choice, candidate.fitted)  # type: ignore[arg-type]
        for alias in [n for n, m in model.named_modules(remove_duplicate=False) if m is old]:
            model.set_submodule(alias, layer)
    return model


def _candidate(layer: LayerSurvey, form: str, rank: object) -> Candidate:
    for candidate in layer.candidates:
        if (candidate.form, candidate.rank) == (form, rank):
            return candidate
    raise ModelError(f"the survey has not fitted {layer.name} as {form} of rank {rank}")


def _measured(calls: Mapping[str, Callable[[], object]]) -> dict[str, Timing]:
    """Whole networks in the same rounds: as many as fit into a few seconds."""
    trial = measure_latency(calls, rounds=1, warmup=1)
    seconds = sum(t.median_ms for t in trial.values()) / 1e3
    return measure_latency(calls, rounds=max(ROUNDS[0], min(ROUNDS[1], int(3 * SECONDS / seconds))), warmup=0)


def _words(key: Key) -> str:
    return "dense" if key is None else f"{key[0]} {key[1]}"
