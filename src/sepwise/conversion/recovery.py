"""`sepwise.recover`: a converted network learns, from unlabelled pictures, to answer as the dense one does."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BudgetError, ModelError
from ..graph.network import copy_of
from ..ops import keep_freed_memory
from .balance import balance
from .calibration import Augment, Calibration, shifted_and_mirrored
from .composed import composed, composing_pays
from .descent import Descent
from .distillation import Features, output_error, output_loss
from .processes import fabric_for
from .recovery_state import FORMAT, Saved
from .saved_state import read, write

PACE = 1e-3  # the rate of a network whose outputs are wholly wrong
WARM_UP = 0.02  # of the whole length
MEASURES = 10  # times that the held-out pictures are looked at, when there are fewer epochs
SAVED_EVERY = 60.0  # seconds


def recover(
    student: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Tensor],
    *,
    epochs: float | None = None,
    minutes: float | None = None,
    labels: Sequence[Tensor] | None = None,
    held_out: Sequence[Tensor] | None = None,
    features: Sequence[str] = (),
    augment: Augment | None = shifted_and_mirrored,
    rate: float | None = None,
    precision: Any = "32-true",
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    fabric: Any = None,
    progress: Callable[[str, int, int], None] | None = None,
    measured: Callable[[float, float], None] | None = None,
) -> nn.Module:
    """Train a copy of `student` to answer as `teacher` does (distillation), and return its best state.

        minimise over all weights   sum over pictures of  loss(student(x), teacher(x)) + mean over features of
                                    |s - t|^2 / |t - mean(t)|^2  + cross entropy with the labels, when given

    student     from `convert`; left unchanged. It stays in evaluation mode: normalizations keep their statistics
    teacher     the dense network; left unchanged
    batches     pictures (N, C, *size) each, unlabelled
    epochs, minutes    how long, one of them; minutes count training alone, on this machine
    labels      for each batch (N,), for classifiers; None: the teacher alone is asked
    held_out    batches to choose the best state on; None: every sixteenth picture, which is not trained on
    features    names of modules, found in both networks, whose answers are compared too
    augment     called with pictures and a generator; None: pictures as they are. Default: shifted and mirrored
    rate        of Muon for matrices and Adam for vectors, in units of each tensor's root mean square; warmed up, then
                lowered to 0 along a cosine. None: 0.001 |s - t| / |t - mean(t)| of the outputs on the held-out pictures
    precision, fabric  of Lightning Fabric: "32-true", "bf16-mixed", ...; or a Fabric of your own. Started by
                `torchrun`, all processes train one network (DDP), each on its share of every epoch
    checkpoint  a file: the state goes there every minute, and training goes on from it when it is there
    progress    called as progress("recover", done, total); measured as measured(done, held-out loss)
    returns     the state with the smallest loss on the held-out pictures, the start included: never worse than it was,
                as far as those pictures tell
    The loss of the outputs: `src/sepwise/conversion/distillation.py`. Separable layers are trained as the dense
    convolution they stand for where that is faster on this machine. Freed memory is kept from here on, as by `fuse`
    (`sepwise.keep_freed_memory`): training would else spend a third of its time on new memory.
    Raises BudgetError unless one of epochs and minutes is given, ModelError and ShapeError for networks and pictures
    that do not fit each other, MissingExtraError without Lightning Fabric.

    >>> import sepwise
    >>> dense = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> pictures = list(torch.randn(32, 3, 12, 12).split(8))
    >>> plan = sepwise.plan(dense, pictures[0], budget={"macs": 0.5}, batches=pictures)
    >>> better = sepwise.recover(sepwise.convert(dense, plan, pictures), dense, pictures, epochs=2)
    >>> better(pictures[0]).shape
    torch.Size([8, 8, 8, 8])
    """
    length = _length(epochs, minutes)
    keep_freed_memory()
    fabric = fabric or fabric_for(precision, "recovering a converted network")
    fabric.launch()
    data = Calibration(batches, labels, held_out, seed)
    run = _Run(student, teacher, data, features, augment, rate, fabric)
    return run.train(length, None if checkpoint is None else Path(checkpoint), progress, measured)


class _Length:
    """How far training has come, from 0 to 1, after so many steps and seconds."""

    def __init__(self, epochs: float | None, minutes: float | None) -> None:
        self.epochs, self.minutes = epochs, minutes

    def done(self, steps: int, in_epoch: int, seconds: float) -> float:
        if self.epochs is not None:
            return min(1.0, steps / max(1, round(self.epochs * in_epoch)))
        assert self.minutes is not None
        return min(1.0, seconds / (60 * self.minutes))


def _length(epochs: float | None, minutes: float | None) -> _Length:
    given = [n for n in (epochs, minutes) if n is not None]
    if len(given) != 1 or not given[0] > 0 or not math.isfinite(given[0]):
        raise BudgetError(f"recover: epochs={epochs}, minutes={minutes}: expected one of them, above 0")
    return _Length(epochs, minutes)


class _Run:
    """One training: the networks, what they read and the optimizer."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        data: Calibration,
        features: Sequence[str],
        augment: Augment | None,
        rate: float | None,
        fabric: Any,
    ) -> None:
        self.data, self.augment, self.rate, self.fabric = data, augment, rate, fabric
        self.network = copy_of(student).eval().requires_grad_(True)
        self.given = _copied(self.network)
        balance(self.network)
        self.home = next(self.network.parameters()).device
        self.teacher = fabric.to_device(copy_of(teacher).eval().requires_grad_(False))
        self.features = Features(self.network, features)
        self.wanted = Features(self.teacher, features)
        self.module = fabric.setup_module(self.network)
        self.descent = Descent(self.network)
        self.optimizers = [fabric.setup_optimizers(each) for each in self.descent.optimizers]

    def train(
        self,
        length: _Length,
        path: Path | None,
        progress: Callable[[str, int, int], None] | None,
        measured: Callable[[float, float], None] | None,
    ) -> nn.Module:
        with self.features.followed(), self.wanted.followed():
            return self._train(self._begin(path), length, path, progress, measured)

    def _train(
        self,
        state: Saved,
        length: _Length,
        path: Path | None,
        progress: Callable[[str, int, int], None] | None,
        measured: Callable[[float, float], None] | None,
    ) -> nn.Module:
        with composed(self.network, state.composed):
            if state.best is None:
                self._measure(state, measured, 0.0)
                state.best = self.given  # the same function; unchanged to the last bit if nothing better comes
            saved = time.monotonic()
            looks = max(MEASURES, int(length.epochs or 0))
            while (done := length.done(state.step, self.in_epoch, state.seconds)) < 1:
                start = time.monotonic()
                self._step(state, done)
                state.seconds = self.fabric.broadcast(state.seconds + time.monotonic() - start)
                state.step += 1
                now = length.done(state.step, self.in_epoch, state.seconds)
                if int(now * looks) > int(done * looks):
                    self._measure(state, measured, now)
                if progress:
                    progress("recover", round(1000 * now), 1000)
                if path and (time.monotonic() - saved > SAVED_EVERY or now >= 1):
                    self._save(path, state)
                    saved = time.monotonic()
        assert state.best is not None
        self.network.load_state_dict(state.best)
        return self.network.to(self.home)

    @property
    def in_epoch(self) -> int:
        """Steps of an epoch, for each process."""
        return max(1, self.data.steps // self.fabric.world_size)

    def _begin(self, path: Path | None) -> Saved:
        about = {"places": len(self.data.places), "seed": self.data.seed, "rate": self.rate}
        about |= {"parameters": [[n, list(p.shape)] for n, p in self.network.named_parameters()]}
        found = read(path, Saved, FORMAT, about, "recovery")
        if found is None:
            x = self.fabric.to_device(self.data.item(0, 0)[0])
            pays = composing_pays(self.network, lambda: self.fabric.backward(self._losses(x, None)))
            self.network.zero_grad()
            rate = self._chosen_rate() if self.rate is None else self.rate
            return Saved(about, bool(self.fabric.broadcast(pays)), self.fabric.broadcast(rate))
        self.network.load_state_dict(found.now)
        self.descent.load(found.search)
        return found

    def _losses(self, x: Tensor, labels: Tensor | None) -> Tensor:
        with torch.no_grad(), self.fabric.autocast():
            wanted = self.teacher(x)
        found = self.module(x)
        loss = output_loss(found, wanted)
        if self.features.names:
            loss = loss + self.features.loss(self.wanted)
        if labels is not None:
            loss = loss + F.cross_entropy(found.float(), labels)
        return loss

    def _step(self, state: Saved, done: float) -> None:
        warm = min(1.0, done / WARM_UP + 1 / (WARM_UP * max(1, self.in_epoch)))
        self.descent.set_rate(state.rate * warm * 0.5 * (1 + math.cos(math.pi * done)))
        epoch, number = divmod(state.step, self.in_epoch)
        x, labels = self.data.item(epoch, number * self.fabric.world_size + self.fabric.global_rank, self.augment)
        x, labels = self.fabric.to_device(x), None if labels is None else self.fabric.to_device(labels)
        loss = self._losses(x, labels)
        if not loss.isfinite():
            raise ModelError(
                f"recover: the loss is {float(loss)} at step {state.step}; give a `rate` below {state.rate:.2g}"
            )
        self.network.zero_grad()
        self.fabric.backward(loss)
        self.descent.take_gradients()
        for optimizer in self.optimizers:
            optimizer.step()
        self.descent.give_weights()

    @torch.no_grad()
    def _chosen_rate(self) -> float:
        """In proportion to what is missing: a network that is nearly right would be led astray by large steps."""
        off, all_of_it = 0.0, 0.0
        for batch in self.data.held_out():
            x = self.fabric.to_device(batch)
            squared, energy = output_error(self.network(x), self.teacher(x))
            off, all_of_it = off + squared, all_of_it + energy
        return PACE * min(1.0, math.sqrt(off / all_of_it)) if all_of_it else PACE

    @torch.no_grad()
    def _measure(self, state: Saved, measured: Callable[[float, float], None] | None, done: float) -> None:
        total, count = 0.0, 0
        for batch in self.data.held_out():
            x = self.fabric.to_device(batch)
            total += len(x) * float(output_loss(self.network(x), self.teacher(x)))
            count += len(x)
        loss = total / count
        if measured:
            measured(done, loss)
        if state.best is None or loss < state.loss:
            state.loss = loss
            state.best = _copied(self.network)

    def _save(self, path: Path, state: Saved) -> None:
        if self.fabric.is_global_zero:
            state.now, state.search = self.network.state_dict(), self.descent.state()
            write(path, state, FORMAT)
        self.fabric.barrier()


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
