"""Calibration pictures as training reads them: a share held out, the rest in a new order for each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ShapeError

HELD_OUT = 16  # one picture of so many, and at least one
Augment = Callable[[Tensor, torch.Generator], Tensor]
Item = tuple[Tensor, Tensor | None]  # pictures (N, C, *size), and labels (N,) when there are any


class Calibration:
    """Batches for training and, never among them, batches for choosing the best state.

    batches     (N, C, *size) each. Of one size: pictures are drawn across batches; else only the batches' order changes
    labels      for each batch (N,), or None
    held_out    batches to measure on; None: every sixteenth picture, or the last sixteenth of batches of many sizes
    """

    def __init__(
        self,
        batches: Sequence[Tensor],
        labels: Sequence[Tensor] | None = None,
        held_out: Sequence[Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        if not len(batches) or not all(len(b) for b in batches):
            raise ShapeError("recovery: there are no pictures, or an empty batch among them; give two at least")
        if labels is not None and [len(b) for b in labels] != [len(b) for b in batches]:
            raise ShapeError(
                f"recovery: labels for {[len(b) for b in labels][:4]}... pictures, batches of "
                f"{[len(b) for b in batches][:4]}...: expected one label for each picture, in the same batches"
            )
        self.batches, self.labels, self.seed = batches, labels, seed
        self.mixed = len({b.shape[1:] for b in batches}) == 1
        self.size = max(len(b) for b in batches)
        # One "place" is a picture (batch, row), or a whole batch (batch, -1) where sizes differ.
        places = [(b, r) for b, batch in enumerate(batches) for r in (range(len(batch)) if self.mixed else [-1])]
        order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)).tolist()
        kept = 0 if held_out is not None else max(1, len(places) // HELD_OUT)
        if kept >= len(places):
            raise ShapeError("recovery: one picture only; at least two are needed, one of them held out")
        self.places = [places[i] for i in sorted(order[kept:])]
        self._held_out = held_out
        self._kept = [places[i] for i in sorted(order[:kept])]

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.places) // self.size) if self.mixed else len(self.places)

    def item(self, epoch: int, number: int, augment: Augment | None = None) -> Item:
        """One batch of an epoch; the same for the same numbers, whoever asks and when."""
        random = torch.Generator().manual_seed(hash((self.seed, epoch, number)) % 2**63)
        order = torch.randperm(
            len(self.places), generator=torch.Generator().manual_seed(hash((self.seed, epoch)) % 2**63)
        )
        # Cut into equal parts: a last batch of one picture would weigh as much as a full one.
        chosen = order.tensor_split(self.steps)[number]
        pictures, labels = self._gather([self.places[i] for i in chosen.tolist()])
        return (pictures if augment is None else augment(pictures, random)), labels

    def held_out(self) -> Iterator[Tensor]:
        """The batches to measure on."""
        if self._held_out is not None:
            yield from self._held_out
            return
        step = self.size if self.mixed else 1
        for start in range(0, len(self._kept), step):
            yield self._gather(self._kept[start : start + step])[0]

    def _gather(self, places: Sequence[tuple[int, int]]) -> Item:
        if not self.mixed:
            ((batch, _),) = places
            return self.batches[batch], None if self.labels is None else self.labels[batch]
        pictures = torch.stack([self.batches[b][r] for b, r in places])
        return pictures, None if self.labels is None else torch.stack([self.labels[b][r] for b, r in places])


def shifted_and_mirrored(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Each picture (N, C, H, W) moved by up to an eighth of its size along both axes, its border reflected; half of
    them mirrored.
    """
    n, _, height, width = pictures.shape
    pads = (height // 8, width // 8)
    padded = F.pad(pictures, (pads[1], pads[1], pads[0], pads[0]), mode="reflect")
    rows, columns = (
        torch.randint(2 * pad + 1, (n, 1), generator=random) + torch.arange(size)
        for pad, size in zip(pads, (height, width), strict=True)
    )
    columns = torch.where(torch.rand(n, 1, generator=random) < 0.5, columns.flip(1), columns)
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
