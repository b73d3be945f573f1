"""How far two networks agree: edge maps, class scores or plain tensors, gathered batch by batch in float64."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, log10, nan, sqrt
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ShapeError

Kind = Literal["maps", "classes", "tensors"]
KINDS = ("maps", "classes", "tensors")
THRESHOLD = 0.5  # where a map says yes


@dataclass
class Agreement:
    """What has been compared so far; every batch adds to it, and two of them can be merged.

    kind          "maps"     values in [0, 1]: F1 at 0.5 over all pixels, mean absolute difference, correlation, PSNR
                  "classes"  scores (N, classes): share of rows with the same largest class, mean KL, relative error
                  "tensors"  anything: relative error, correlation
                  None       read off the first batch, see `kind_of`
    values        compared pairs of numbers
    not_finite    pairs left out because one of the two was NaN or infinite

    A number that does not exist (correlation of a constant, F1 of maps all below 0.5) is NaN, in `to_dict` None.
    """

    kind: Kind | None = None
    values: int = 0
    not_finite: int = 0
    _moments: Tensor = field(default_factory=lambda: torch.zeros(5, dtype=torch.float64), repr=False)
    _squared_reference: float = field(default=0.0, repr=False)
    _squared_difference: float = field(default=0.0, repr=False)
    _absolute_difference: float = field(default=0.0, repr=False)
    _yes: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.int64), repr=False)
    _rows: int = field(default=0, repr=False)
    _same_top: int = field(default=0, repr=False)
    _divergence: float = field(default=0.0, repr=False)

    def update(self, outputs: Tensor, reference: Tensor) -> Agreement:
        """Add one batch. Raises ShapeError when the two differ in shape or do not fit the kind."""
        if outputs.shape != reference.shape:
            raise ShapeError(
                f"agreement: outputs {tuple(outputs.shape)} and reference {tuple(reference.shape)} must have one shape"
            )
        x, y = outputs.detach().double(), reference.detach().double()
        self.kind = self.kind or kind_of(y)
        if self.kind == "classes":
            self._add_rows(x, y)
        good = x.isfinite() & y.isfinite()
        x, y = x[good], y[good]
        self.not_finite += good.numel() - x.numel()
        if self.kind == "maps":
            self._add_yes(x, y)
        self._add_pairs(x, y)
        return self

    def merge(self, other: Agreement) -> Agreement:
        """Add everything another Agreement of the same kind has seen."""
        if self.kind and other.kind and self.kind != other.kind:
            raise ShapeError(f"agreement: {self.kind} cannot be merged with {other.kind}")
        self.kind = self.kind or other.kind
        self._merge_moments(other.values, other._moments)
        self.not_finite += other.not_finite
        self._squared_reference += other._squared_reference
        self._squared_difference += other._squared_difference
        self._absolute_difference += other._absolute_difference
        self._yes = self._yes + other._yes
        self._rows += other._rows
        self._same_top += other._same_top
        self._divergence += other._divergence
        return self

    @property
    def mean_absolute_difference(self) -> float:
        return self._absolute_difference / self.values if self.values else nan

    @property
    def relative_error(self) -> float:
        """|outputs - reference| / |reference|, Frobenius norms."""
        if not self.values:
            return nan
        if self._squared_reference == 0:
            return 0.0 if self._squared_difference == 0 else inf
        return sqrt(self._squared_difference / self._squared_reference)

    @property
    def correlation(self) -> float:
        """Pearson's, over all values together."""
        mean_x, mean_y, xx, yy, xy = self._moments.tolist()
        if xx <= self._rounding_of(mean_x) or yy <= self._rounding_of(mean_y):
            return nan
        return max(-1.0, min(1.0, xy / sqrt(xx * yy)))

    @property
    def psnr_db(self) -> float:
        """10 log10(1 / mean squared difference), for a peak of 1; infinite when there is no difference."""
        if not self.values:
            return nan
        return -10 * log10(self._squared_difference / self.values) if self._squared_difference else inf

    @property
    def f1(self) -> float:
        """2 * both / (outputs yes + reference yes), pixels above 0.5 counted over all maps together."""
        both, x_yes, y_yes = self._yes.tolist()
        return 2 * both / (x_yes + y_yes) if x_yes + y_yes else nan

    @property
    def top1(self) -> float:
        """Share of rows whose largest class is the same."""
        return self._same_top / self._rows if self._rows else nan

    @property
    def kl_nats(self) -> float:
        """Mean over rows of KL(softmax(reference) || softmax(outputs)), in nats."""
        return self._divergence / self._rows if self._rows else nan

    def to_dict(self) -> dict[str, Any]:
        """The numbers of this kind, plain types; None for what does not exist or is infinite."""
        names = {
            "maps": ("f1", "mean_absolute_difference", "correlation", "psnr_db", "relative_error"),
            "classes": ("top1", "kl_nats", "relative_error"),
            "tensors": ("relative_error", "correlation"),
        }
        numbers = {name: getattr(self, name) for name in names.get(self.kind or "", ())}
        finite = {name: value if abs(value) < inf else None for name, value in numbers.items()}
        return {"kind": self.kind, **finite, "values": self.values, "not_finite": self.not_finite}

    def __str__(self) -> str:
        words = {
            "f1": "F1 at 0.5",
            "mean_absolute_difference": "mean absolute difference",
            "psnr_db": "PSNR dB",
            "top1": "same top-1",
            "kl_nats": "KL nats",
            "relative_error": "relative error",
        }
        shown = {k: v for k, v in self.to_dict().items() if k not in ("kind", "values", "not_finite")}
        parts = [f"{words.get(k, k)} {'undefined' if v is None else format(v, '.4f')}" for k, v in shown.items()]
        if self._squared_difference == 0 and self.values:
            parts.append("identical")
        if self.not_finite:
            parts.append(f"{self.not_finite} of {self.values + self.not_finite} values NaN or infinite, left out")
        return ", ".join(parts) or "nothing compared yet"

    def _rounding_of(self, mean: float) -> float:
        """The sum of squares that rounding alone gives around a mean, so that a constant is seen as one."""
        return self.values * (4 * torch.finfo(torch.float64).eps * mean) ** 2

    def _add_rows(self, x: Tensor, y: Tensor) -> None:
        if y.ndim != 2:
            raise ShapeError(f"agreement: class scores are (N, classes); got {tuple(y.shape)}")
        good = (x.isfinite() & y.isfinite()).all(dim=1)
        x, y = x[good], y[good]
        self._rows += len(x)
        self._same_top += int((x.argmax(1) == y.argmax(1)).sum())
        p, q = y.log_softmax(1), x.log_softmax(1)
        self._divergence += float((p.exp() * (p - q)).sum())

    def _add_yes(self, x: Tensor, y: Tensor) -> None:
        x_yes, y_yes = x > THRESHOLD, y > THRESHOLD
        counts = [int((x_yes & y_yes).sum()), int(x_yes.sum()), int(y_yes.sum())]
        self._yes = self._yes + torch.tensor(counts)

    def _add_pairs(self, x: Tensor, y: Tensor) -> None:
        if not x.numel():
            return
        self._squared_reference += float(y.square().sum())
        self._squared_difference += float((x - y).square().sum())
        self._absolute_difference += float((x - y).abs().sum())
        mean_x, mean_y = x.mean(), y.mean()
        dx, dy = x - mean_x, y - mean_y
        moments = torch.stack([mean_x, mean_y, dx.square().sum(), dy.square().sum(), (dx * dy).sum()])
        self._merge_moments(x.numel(), moments.cpu())

    def _merge_moments(self, n: int, other: Tensor) -> None:
        # Means and central sums, merged as in Chan, Golub & LeVeque 1983: plain sums of squares would cancel.
        if not n:
            return
        total = self.values + n
        shift = other[:2] - self._moments[:2]
        cross = torch.stack([shift[0] ** 2, shift[1] ** 2, shift[0] * shift[1]])
        means = self._moments[:2] + shift * (n / total)
        central = self._moments[2:] + other[2:] + cross * (self.values * n / total)
        self._moments = torch.cat([means, central])
        self.values = total


def agreement(outputs: Tensor, reference: Tensor, kind: Kind | None = None) -> Agreement:
    """Compare what a network gives with what it should give.

    outputs, reference    one shape, any floating dtype
    kind                  see `Agreement`; None: chosen by `kind_of`
    returns               Agreement; `.update` adds further batches
    Raises ShapeError when the shapes differ or the kind is unknown.

    >>> dense, separable = torch.tensor([[0.1, 0.9, 0.8]]), torch.tensor([[0.1, 0.7, 0.2]])
    >>> found = agreement(separable, dense, "maps")
    >>> round(found.f1, 3), round(found.mean_absolute_difference, 3)
    (0.667, 0.267)
    """
    if kind is not None and kind not in KINDS:
        raise ShapeError(f"agreement: kind={kind!r}: expected one of {', '.join(KINDS)}")
    return Agreement(kind).update(outputs, reference)


def kind_of(reference: Tensor) -> Kind:
    """ "classes" for (N, classes); "maps" for values in [0, 1] with three axes or more; else "tensors".

    >>> kind_of(torch.randn(8, 10)), kind_of(torch.rand(1, 1, 4, 4)), kind_of(torch.full((1, 4, 7, 7), -3.0))
    ('classes', 'maps', 'tensors')
    """
    if reference.ndim == 2:
        return "classes"
    finite = reference[reference.isfinite()]
    if reference.ndim >= 3 and finite.numel() and finite.min() >= 0 and finite.max() <= 1:
        return "maps"
    return "tensors"
