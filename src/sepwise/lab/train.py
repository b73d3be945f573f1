"""One training loop for all recipes: a network learns the classes of pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..conversion.processes import fabric_for
from ..conversion.saved_state import State, read, write
from ..errors import SepwiseError
from .data import Labelled, ready

SAVED_EVERY = 20.0  # seconds, at the end of an epoch
FORMAT = "sepwise-lab/1"


@dataclass(frozen=True)
class Training:
    """How long and how: stochastic gradient descent with Nesterov momentum, on shifted and mirrored pictures.

    rate        at its highest, after `warm_up` (a share of all steps); then lowered to 0 along a cosine, in a straight
                line, or by ten after half and three quarters ("steps")
    decay       weight decay, not of biases, norms and slopes
    smoothing   of labels
    average     decay of a running average of the weights, which is what is returned; None: the last weights
    precision   of Lightning Fabric: "32-true", "bf16-mixed"
    """

    epochs: int
    batch: int = 128
    rate: float = 0.1
    momentum: float = 0.9
    decay: float = 5e-4
    schedule: Literal["cosine", "line", "steps"] = "cosine"
    warm_up: float = 0.05
    smoothing: float = 0.0
    average: float | None = None
    precision: str = "32-true"

    def rate_at(self, done: float) -> float:
        """The rate when a share `done` of all steps is behind."""
        if done < self.warm_up:
            return self.rate * max(done / self.warm_up, 0.01)
        left = (1 - done) / (1 - self.warm_up)
        if self.schedule == "steps":
            return self.rate * 0.1 ** ((done >= 0.5) + (done >= 0.75))
        return self.rate * (left if self.schedule == "line" else 0.5 * (1 - math.cos(math.pi * left)))


@dataclass(frozen=True)
class Trained:
    """losses: mean training loss of each epoch. diverged: the loss was not finite, and training ended there."""

    network: nn.Module
    losses: list[float]
    diverged: bool = False


@dataclass
class _State(State):
    """What a training that was stopped goes on from."""

    epochs: int = 0
    losses: list[float] = field(default_factory=list)
    network: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] | None = None
    search: dict[str, Any] = field(default_factory=dict)


def train(
    network: nn.Module,
    pictures: Labelled,
    how: Training,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    fabric: Any = None,
    progress: Callable[[float], None] | None = None,
) -> Trained:
    """Train `network` in place; its initial weights are the caller's.

    network     (N, 3, H, W) -> (N, classes)
    seed        draws the order of the pictures, their shifts and whatever the network draws
    checkpoint  a file: the state goes there at the end of epochs, and training goes on from it when it is there, to the
                same end as without the stop
    fabric      a Lightning Fabric; None: this device, or all processes of `torchrun` (each on its share of a batch)
    progress    called with the share done
    returns     the network after the last epoch, in evaluation mode
    Raises WeightsError when the checkpoint is of another training, MissingExtraError without Lightning Fabric.
    """
    if how.batch > len(pictures):
        raise SepwiseError(f"train: {len(pictures)} pictures do not fill one batch of {how.batch}")
    fabric = fabric or fabric_for(how.precision, "training a network")
    fabric.launch()
    home = next(network.parameters()).device
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    search = torch.optim.SGD(_groups(network, how.decay), how.rate, momentum=how.momentum, nesterov=how.momentum > 0)
    module, optimizer = fabric.setup(network, search)
    average = None
    if how.average is not None:
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(how.average), use_buffers=True)
    about = {"how": asdict(how), "seed": seed, "pictures": len(pictures)}
    state = read(checkpoint, _State, FORMAT, about, "training") or _State(about)
    if state.epochs:
        network.load_state_dict(state.network)
        search.load_state_dict(state.search)
        if average is not None and state.average is not None:
            average.load_state_dict(state.average)
    saved, steps = time.monotonic(), len(pictures) // how.batch
    for epoch in range(state.epochs, how.epochs):
        module.train()
        total = 0.0
        for step, rows in enumerate(_batches(len(pictures), how.batch, seed, epoch)):
            done = (epoch * steps + step) / (how.epochs * steps)
            for group in search.param_groups:
                group["lr"] = how.rate_at(done)
            total += _step(module, optimizer, fabric, pictures, rows, how, seed=hash((seed, epoch, step)))
            if not math.isfinite(total):
                return Trained(network.to(home).eval(), [*state.losses, total], diverged=True)
            if average is not None:
                average.update_parameters(network)
            if progress:
                progress(done)
        state.losses.append(total / steps)
        state.epochs = epoch + 1
        if checkpoint and fabric.is_global_zero and time.monotonic() - saved > SAVED_EVERY:
            state.network, state.search = network.state_dict(), search.state_dict()
            state.average = None if average is None else average.state_dict()
            write(checkpoint, state, FORMAT)
            saved = time.monotonic()
    final = network if average is None else average.module
    return Trained(final.to(home).eval(), state.losses)


@torch.no_grad()
def predicted(network: nn.Module, pictures: Labelled, batch: int = 500) -> Tensor:
    """The class with the largest score for each picture, (N,); -1 where no score is finite."""
    network.eval()
    device = next(network.parameters()).device
    found = []
    for images in pictures.images.split(batch):
        scores = network(ready(images).to(device)).float()
        found.append(torch.where(scores.isfinite().all(1), scores.argmax(1), -1).cpu())
    return torch.cat(found)


def error(classes: Tensor, pictures: Labelled) -> float:
    """Share of wrong classes, in percent."""
    return 100 * float((classes != pictures.labels).double().mean())


def _step(
    module: nn.Module, optimizer: Any, fabric: Any, pictures: Labelled, rows: Tensor, how: Training, seed: int
) -> float:
    """One step on this process's share of the batch; its loss."""
    random = torch.Generator().manual_seed(seed % 2**63)
    x, labels = pictures.batch(rows, random), pictures.labels[rows]
    if fabric.world_size > 1:
        x, labels = (t.tensor_split(fabric.world_size)[fabric.global_rank] for t in (x, labels))
    torch.manual_seed(seed % 2**63)  # what the network itself draws: the same after a stop
    loss = F.cross_entropy(module(fabric.to_device(x)), fabric.to_device(labels), label_smoothing=how.smoothing)
    optimizer.zero_grad()
    fabric.backward(loss)
    optimizer.step()
    return float(fabric.all_reduce(loss.detach(), reduce_op="mean"))


def _batches(count: int, batch: int, seed: int, epoch: int) -> list[Tensor]:
    """Full batches of rows in the order of this epoch."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(hash((seed, epoch)) % 2**63))
    return list(order[: count // batch * batch].split(batch))


def _groups(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    weights = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    return [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
