"""Second moments of what a convolution sees and of what it should answer, from sampled positions, in a stream."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ModelError
from ..geometry import ConvShape
from ..ops.conv import pad

MOST_INPUTS = 10_000  # of one output; their covariance takes 0.8 GB, and a fit holds about six of its size
AT_ONCE = 4096  # samples that are multiplied together, in the precision of the pictures, before float64 adds them up


def why_too_large(conv: ConvShape) -> str | None:
    """The reason why a layer has too many inputs to be fitted on pictures; None when it has not."""
    inputs = conv.parameters // conv.out_channels
    if inputs <= MOST_INPUTS:
        return None
    gigabytes = 6 * 8 * conv.groups * inputs**2 / 1e9
    return (
        f"each output reads {inputs:,} numbers, and a fit on pictures would take about {gigabytes:.0f} GB for their "
        f"covariance; it is fitted up to {MOST_INPUTS:,}"
    )


@dataclass
class Moments:
    """Everything a least-squares fit needs to know of the data; sizes do not depend on the number of pictures.

    gram     (groups, P, P)     covariance of the input patches, P = in / groups * kernel positions
    cross    (groups, O, P)     covariance of the wanted outputs with the patches, O = out / groups
    patch    (groups, P)        mean patch
    output   (groups, O)        mean wanted output
    share    of all samples; the means and what is subtracted are of all of them
    halves   the same of every other picture and of the rest, for cross-validation; None where they were not asked for
             or there is a single picture
    """

    gram: Tensor
    cross: Tensor
    patch: Tensor
    output: Tensor
    share: float = 1.0
    halves: tuple[Moments, Moments] | None = None


class _Sums:
    """Plain sums over samples, float64."""

    def __init__(self, groups: int, outputs: int, patch: int) -> None:
        self.count = 0
        self.gram = torch.zeros(groups, patch, patch, dtype=torch.float64)
        self.cross = torch.zeros(groups, outputs, patch, dtype=torch.float64)
        self.patch = torch.zeros(groups, patch, dtype=torch.float64)
        self.output = torch.zeros(groups, outputs, dtype=torch.float64)
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        """x (g, P, samples), y (g, O, samples)."""
        self.count += x.shape[-1]
        self._waiting.append((x, y))
        if sum(x.shape[-1] for x, _ in self._waiting) >= AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Add up what waits: few large products, for a sum of P x P numbers costs as much as hundreds of samples."""
        if not self._waiting:
            return
        x, y = (torch.cat(parts, -1) for parts in zip(*self._waiting, strict=True))
        self._waiting.clear()
        self.gram += x @ x.mT
        self.cross += y @ x.mT
        self.patch += x.sum(-1, dtype=torch.float64)
        self.output += y.sum(-1, dtype=torch.float64)

    def moments(self, patch: Tensor, output: Tensor, total: int) -> Moments:
        """Second moments about the given means."""
        n = max(self.count, 1)
        gram, cross, own, answer = self.gram / n, self.cross / n, self.patch / n, self.output / n
        gram -= own.unsqueeze(2) * patch.unsqueeze(1) + patch.unsqueeze(2) * (own - patch).unsqueeze(1)
        cross -= answer.unsqueeze(2) * patch.unsqueeze(1) + output.unsqueeze(2) * (own - patch).unsqueeze(1)
        return Moments(gram, cross, patch, output, self.count / max(total, 1))


class MomentSum:
    """Adds up patches and wanted outputs, batch by batch, in float64."""

    def __init__(
        self, conv: ConvShape, padding_mode: str, positions: int, seed: int = 0, *, halves: bool = True
    ) -> None:
        """positions: sampled output positions of each picture (all of them when there are fewer)."""
        g, patch = conv.groups, conv.parameters // conv.out_channels
        self.conv, self.padding_mode, self.positions = conv, padding_mode, positions
        self.random = torch.Generator().manual_seed(seed)
        self.pictures = 0
        self._sums = [_Sums(g, conv.out_channels // g, patch) for _ in range(2 if halves else 1)]

    @property
    def count(self) -> int:
        """Samples so far."""
        return sum(part.count for part in self._sums)

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        """inputs (N, C, *size) as the layer will see them; outputs (N, O, *size') as it should answer."""
        g, parts = self.conv.groups, len(self._sums)
        patches, wanted = self._sample(inputs, outputs)  # (picture, P, samples), (picture, O, samples)
        for i, part in enumerate(self._sums):
            x, y = (t[(i - self.pictures) % parts :: parts].transpose(0, 1).flatten(1) for t in (patches, wanted))
            part.add(x.unflatten(0, (g, -1)), y.unflatten(0, (g, -1)))
        self.pictures += len(inputs)

    def moments(self) -> Moments:
        """Raises ModelError when something that was added is not finite."""
        for part in self._sums:
            part.settle()
        n = max(self.count, 1)
        patch = torch.stack([part.patch for part in self._sums]).sum(0) / n
        output = torch.stack([part.output for part in self._sums]).sum(0) / n
        whole, *rest = (part.moments(patch, output, n) for part in self._sums)
        if rest:
            gram, cross = whole.gram * whole.share, whole.cross * whole.share
            gram.add_(rest[0].gram, alpha=rest[0].share)
            cross.add_(rest[0].cross, alpha=rest[0].share)
            whole = Moments(gram, cross, patch, output, halves=(whole, rest[0]) if rest[0].share else None)
        if not all(bool(t.isfinite().all()) for t in (whole.gram, whole.cross, whole.output)):
            raise ModelError("the network gives NaN or Inf on these pictures; look at the pictures and the weights")
        return whole

    def _sample(self, inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        geometry = self.conv.geometry
        padded = pad(inputs, geometry.pads(inputs.shape[2:]), self.padding_mode)
        size, out_size = padded.shape[2:], outputs.shape[2:]
        total = out_size.numel()
        strides = [torch.Size(size[a + 1 :]).numel() for a in range(len(size))]
        offsets = _grid([d * torch.arange(k) for k, d in zip(geometry.kernel, geometry.dilation, strict=True)], strides)
        corners = _grid([s * torch.arange(n) for n, s in zip(out_size, geometry.stride, strict=True)], strides)
        patches, wanted = [], []
        for picture, answer in zip(padded.flatten(2), outputs.flatten(2), strict=True):
            chosen = torch.randperm(total, generator=self.random)[: self.positions]
            index = offsets.unsqueeze(1) + corners[chosen].unsqueeze(0)  # (K, samples)
            patches.append(picture[:, index].flatten(0, 1))
            wanted.append(answer[:, chosen])
        kind = torch.promote_types(inputs.dtype, torch.float32)  # sums of half-precision products would be rounded away
        return torch.stack(patches).to(kind), torch.stack(wanted).to(kind)


def moments_of(
    conv: ConvShape,
    padding_mode: str,
    positions: int,
    pairs: Iterable[tuple[Tensor, Tensor]],
    *,
    halves: bool = True,
) -> Moments:
    """The moments of (inputs, outputs) batches; the sums behind them are given back."""
    total = MomentSum(conv, padding_mode, positions, halves=halves)
    for inputs, outputs in pairs:
        total.add(inputs, outputs)
    return total.moments()


def _grid(axes: list[Tensor], strides: list[int]) -> Tensor:
    """Flat indices of the points of a grid, in row-major order."""
    index = torch.zeros(1, dtype=torch.long)
    for axis, stride in zip(axes, strides, strict=True):
        index = (index.unsqueeze(-1) + axis * stride).flatten()
    return index
