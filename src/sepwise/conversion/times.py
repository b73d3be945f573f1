"""How long each layer takes, dense and as each candidate; what a plan made of them should take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..factor import Rank
from .plan import Choice, Latency

Key = tuple[str, Rank] | None  # form and rank of a candidate; None is the dense layer


@dataclass(frozen=True)
class Time:
    """Milliseconds of one layer with its activation, and what computes it."""

    ms: float
    kernel: str


@dataclass(frozen=True)
class Times:
    """The network in parts: what its layers take, and what is left.

        predicted = base + sum over converted layers of  scale * time[candidate] - time[dense]

    dense_ms     the dense network in its own fastest form in stock PyTorch, whose name is `dense_form`
    base_ms      the dense network as `fuse` runs it: with all layers left dense, a converted network is that
    layers       by name: the time of the dense layer and of each candidate
    scale        what candidates take within the network, in units of what they take alone; 1 until measured
    threads      PyTorch's threads
    size         of the picture, batch 1
    """

    dense_ms: float
    dense_form: str
    base_ms: float
    layers: Mapping[str, Mapping[Key, Time]]
    threads: int
    size: tuple[int, ...] = ()
    scale: float = field(default=1.0)

    def time(self, name: str, key: Key) -> Time:
        """Of a layer with a candidate, or dense, as it counts in the prediction."""
        time = self.layers[name][key]
        return time if key is None else replace(time, ms=time.ms * self.scale)

    def ms(self, name: str, key: Key) -> float:
        return self.time(name, key).ms

    def predicted_ms(self, layers: Mapping[str, Choice]) -> float:
        """Of a network whose layers become what these choices say."""
        changed = {n: c for n, c in layers.items() if c.form != "dense"}
        return self.base_ms + sum(self.ms(n, (c.form, _rank(c))) - self.ms(n, None) for n, c in changed.items())

    def of_plan(self, layers: Mapping[str, Choice]) -> Latency:
        """The prediction as a plan holds it."""
        return Latency(self.dense_ms, self.dense_form, self.predicted_ms(layers), None, self.threads, self.size)

    def corrected(self, layers: Mapping[str, Choice], measured: float) -> Times:
        """The same times, scaled so that they predict for these choices the fraction that was measured."""
        changed = {n: c for n, c in layers.items() if c.form != "dense"}
        alone = sum(self.layers[n][c.form, _rank(c)].ms for n, c in changed.items())
        rest = self.base_ms - sum(self.ms(n, None) for n in changed)
        return self if not changed else replace(self, scale=max(0.1, (measured * self.dense_ms - rest) / alone))


def _rank(choice: Choice) -> Rank:
    assert choice.rank is not None
    return choice.rank
