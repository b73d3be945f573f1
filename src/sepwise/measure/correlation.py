"""How alike neighbouring pixels are, and different channels, in what the convolutions of a network read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, ShapeError
from .trace import evaluating

DISTANCES = (1, 2, 3, 4, 8)  # pixels
AXES = ("vertical", "horizontal")


@dataclass(frozen=True)
class Correlation:
    """Of maps x (N, C, H, W): what their positions have in common, and what their channels.

        r_c(d) = cov(x[n,c,p], x[n,c,p+d]) / (deviations of both)     over pictures n and all pixels p with p + d inside
        r_ab   = the same of x[n,a,p] and x[n,b,p]                    over pictures and all pixels
        dimensions = (trace S)^2 / |S|^2,   S = cov of the channels   participation ratio: 1, all channels are one
                                                                      picture, to C, all are alike and independent

    channels     how many; `varying`: how many of them are not constant. The others count nowhere
    pictures     how many
    spatial      axis -> distance in pixels -> mean of r_c over channels; no distance that the maps are too small for
    weighted     the same with each channel weighing as much as it varies: sum of cov / sum of variances
    across       mean |r_ab| over pairs of different channels; None for fewer than two
    chance       the same with channel b taken from the next picture: what independent channels, as smooth as these and
                 with the same borders, show in so many pictures. It is not 0. None for one picture
    dimensions   None when nothing varies
    """

    channels: int
    varying: int
    pictures: int
    spatial: Mapping[str, Mapping[int, float]]
    weighted: Mapping[str, Mapping[int, float]]
    across: float | None
    chance: float | None
    dimensions: float | None

    def at(self, distance: int) -> float | None:
        """Mean of `spatial` over both axes at this distance; None where the maps are too small."""
        found = [curve[distance] for curve in self.spatial.values() if distance in curve]
        return sum(found) / len(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        """Plain types; distances become text, as JSON has it."""
        return {
            **{name: getattr(self, name) for name in ("channels", "varying", "pictures", "across", "chance")},
            "dimensions": self.dimensions,
            **{
                name: {axis: {str(d): r for d, r in curve.items()} for axis, curve in getattr(self, name).items()}
                for name in ("spatial", "weighted")
            },
        }


def correlation(maps: Iterable[Tensor], distances: Sequence[int] = DISTANCES) -> Correlation:
    """The `Correlation` of maps that come in batches (N, C, H, W), as if they were one.

    Raises ShapeError for maps without four axes, with different numbers of channels, or that are not finite.

    >>> ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    >>> found = correlation([torch.cat([ramp, -ramp], dim=1)], distances=(1,))
    >>> round(found.at(1), 6), round(found.across, 6), round(found.dimensions, 6)
    (1.0, 1.0, 1.0)
    """
    total = CorrelationSum(distances)
    for batch in maps:
        total.add(batch)
    return total.result()


def correlations(
    model: nn.Module, batches: Sequence[Tensor], distances: Sequence[int] = DISTANCES
) -> dict[str, Correlation]:
    """Of the input of every `Conv2d` that runs, by the module's name, in the order in which they first run.

    batches    pictures (N, C, H, W); the model runs on each in evaluation mode and is left as it was
    An input is what the module is given, without the padding that it adds. All calls of one module count together.
    Raises ModelError when the model cannot run on the pictures, ShapeError as `correlation`.

    >>> found = correlations(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)), [torch.randn(2, 3, 8, 8)])
    >>> {name: each.channels for name, each in found.items()}
    {'0': 3, '1': 8}
    """
    sums: dict[str, CorrelationSum] = {}

    def follow(name: str, module: nn.Module) -> Any:
        def see(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            sums.setdefault(name, CorrelationSum(distances)).add(inputs[0])

        return module.register_forward_pre_hook(see)

    handles = [follow(name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    try:
        with evaluating(model):
            for batch in batches:
                model(batch)
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"the model cannot run on these pictures: {str(error).partition(chr(10))[0]}") from error
    finally:
        for handle in handles:
            handle.remove()
    return {name: total.result() for name, total in sums.items()}


class CorrelationSum:
    """Sums over batches, float64, from which a `Correlation` follows; they do not grow with the number of pictures."""

    def __init__(self, distances: Sequence[int] = DISTANCES) -> None:
        self.distances = tuple(distances)
        self.pictures = self.channels = self.count = 0
        self._sum, self._products, self._next = (torch.zeros((), dtype=torch.float64) for _ in range(3))
        self._pairs: dict[tuple[str, int], Tensor] = {}
        self._ends: tuple[Tensor, Tensor] | None = None  # the first and the last picture so far

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Maps (N, C, H, W) of any floating dtype."""
        if x.ndim != 4 or (self.pictures and x.shape[1] != self.channels) or not bool(x.isfinite().all()):
            expected = f"(N, {self.channels}, H, W)" if self.pictures else "(N, C, H, W)"
            raise ShapeError(f"correlation: maps {tuple(x.shape)} are not {expected}, or hold NaN or Inf")
        x = x.detach().double()
        rows = x.transpose(0, 1).flatten(1)
        self.channels, self.pictures, self.count = x.shape[1], self.pictures + len(x), self.count + rows.shape[1]
        self._sum, self._products = self._sum + rows.sum(1), self._products + rows @ rows.T
        for axis, name in ((2, AXES[0]), (3, AXES[1])):
            for distance in self.distances:
                if distance < x.shape[axis]:
                    here = x.narrow(axis, 0, x.shape[axis] - distance)
                    there = x.narrow(axis, distance, x.shape[axis] - distance)
                    self._pairs[name, distance] = self._pairs.get((name, distance), 0) + _sums(here, there)
        first, last = self._ends or (x[0], x[-1])
        before = [last, *x[:-1]] if self._ends else x[:-1]
        for one, other in zip(before, x if self._ends else x[1:], strict=True):
            self._next = self._next + _between(one, other)
        self._ends = first, x[-1]

    def result(self) -> Correlation:
        """Of everything added so far. Raises ShapeError when that is nothing."""
        if self._ends is None:
            raise ShapeError("correlation: no maps were given")
        mean = self._sum / self.count
        covariance = self._products / self.count - torch.outer(mean, mean)
        variance = covariance.diagonal()
        varies = variance > 1e-12 * (variance + mean.square())  # below, it is rounding
        covariance, mean = covariance[varies][:, varies], mean[varies]
        round_trip = self._next + _between(self._ends[1], self._ends[0])  # the last picture is followed by the first
        following = None
        if self.pictures > 1:
            following = round_trip[varies][:, varies] / self.count - torch.outer(mean, mean)
        spatial: dict[str, dict[int, float]] = {axis: {} for axis in AXES}
        weighted: dict[str, dict[int, float]] = {axis: {} for axis in AXES}
        for (axis, distance), sums in self._pairs.items():
            each, whole = _along(sums[:, varies])
            if each is not None and whole is not None:
                spatial[axis][distance], weighted[axis][distance] = each, whole
        return Correlation(
            channels=self.channels,
            varying=int(varies.sum()),
            pictures=self.pictures,
            spatial=spatial,
            weighted=weighted,
            across=_mean_size(covariance, covariance),
            chance=None if following is None else _mean_size(following, covariance),
            dimensions=float(covariance.trace() ** 2 / covariance.square().sum()) if bool(varies.any()) else None,
        )


def _sums(here: Tensor, there: Tensor) -> Tensor:
    """For each channel, over pairs: how many, sums of both, of their squares, and of their products: (6, C)."""
    count = torch.full((here.shape[1],), float(here[:, 0].numel()), dtype=torch.float64, device=here.device)
    parts = (here, there, here * here, there * there, here * there)
    return torch.stack([count, *(part.sum((0, 2, 3)) for part in parts)])


def _between(one: Tensor, other: Tensor) -> Tensor:
    """Products of the channels of one picture with those of another of the same size, pixel by pixel: (C, C)."""
    if one.shape != other.shape:
        raise ShapeError(f"correlation: pictures of {tuple(one.shape)} and {tuple(other.shape)}; expected one size")
    return one.flatten(1) @ other.flatten(1).T


def _along(sums: Tensor) -> tuple[float | None, float | None]:
    """Mean r over channels, and the one weighted by variance; None where nothing varies among these pairs."""
    count, here, there, here2, there2, both = sums
    covariance = both / count - here * there / count**2
    variances = (here2 / count - (here / count) ** 2, there2 / count - (there / count) ** 2)
    deviations = (variances[0].clamp_min(0) * variances[1].clamp_min(0)).sqrt()
    fine = deviations > 0
    if not bool(fine.any()):
        return None, None
    each = (covariance[fine] / deviations[fine]).clamp(-1, 1)
    return float(each.mean()), float(covariance[fine].sum() / deviations[fine].sum())


def _mean_size(products: Tensor, covariance: Tensor) -> float | None:
    """Mean |r| over pairs of different channels; None for fewer than two."""
    channels = len(covariance)
    if channels < 2:
        return None
    deviations = covariance.diagonal().sqrt()
    r = (products / torch.outer(deviations, deviations)).abs().clamp(max=1)
    return float((r.sum() - r.diagonal().sum()) / (channels * (channels - 1)))
