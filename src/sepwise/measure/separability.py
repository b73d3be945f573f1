"""How separable a trained kernel is: energy against rank, spatial rank, correlation within and across kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, isfinite, lcm

import torch
from torch import Tensor

from ..errors import ShapeError, UnsupportedError
from ..factor import MatrixForm, Rank, check_rank, factorize, form_named, shape_of
from ..factor.lowrank import singular_energies


def energy_curve(
    weight: Tensor, form: str = "depthwise", groups: int = 1, ranks: Sequence[Rank] | None = None
) -> list[float]:
    """Share of the energy |W|^2 that `form` keeps, rank by rank.

    weight     (out, in / groups, *kernel)
    ranks      None: every rank from 1 to the full one, from one set of singular values (depthwise, blueprint and
               both spatial forms; cp and tucker have no such shortcut and need their ranks named)
    returns    fractions of 1, in the order of `ranks`; 1.0 for an all-zero weight
    Raises UnsupportedError when the form does not exist for this weight, ShapeError when a rank is out of range.

    >>> energy_curve(torch.tensor([[[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]]]), "spatial")
    [0.66..., 0.83..., 1.0]
    """
    chosen, conv = form_named(form), shape_of(weight.shape, groups)
    reason = chosen.why_not(conv)
    if reason:
        raise UnsupportedError(f"energy_curve: {form}: {reason}")
    if not isinstance(chosen, MatrixForm):
        if ranks is None:
            raise UnsupportedError(f"energy_curve: {form} has no closed form; name the ranks, e.g. ranks=(1, 2, 4)")
        return [factorize(weight, form, rank, groups=groups).energy_kept for rank in ranks]
    _require_finite("energy_curve", weight)
    energies = singular_energies(chosen.matrices(weight.detach(), groups)).flatten(0, -2).sum(0)
    curve = _shares(energies.cumsum(0), energies.sum()).tolist()
    if ranks is None:
        return curve
    asked = [check_rank(chosen, conv, rank) for rank in ranks]
    return [curve[rank - 1] for rank in asked if isinstance(rank, int)]


def spatial_rank(weight: Tensor, tolerance: float = 0.01) -> Tensor:
    """The rank of every single kernel as a matrix: the fewest N x 1 - 1 x N pairs that lose little of its energy.

    weight       (out, in / groups, *kernel), two or three spatial axes; in three, rows are all axes but the last
    tolerance    share of a kernel's energy that may be lost
    returns      (out, in / groups), integers; 0 for a kernel of zeros

    >>> sobel, diagonal = [[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]
    >>> spatial_rank(torch.tensor([[sobel, diagonal]])).tolist()
    [[1, 3]]
    """
    lost = _lost("spatial_rank", weight)
    return (lost > tolerance * lost[..., :1]).sum(-1)


def rank_one_loss(weight: Tensor) -> Tensor:
    """The share of its energy that every single kernel loses to its best N x 1 - 1 x N pair.

    weight     as in `spatial_rank`
    returns    (out, in / groups), fractions of 1; 0 for a kernel of zeros

    >>> rank_one_loss(torch.tensor([[[[1.0, 2.0], [2.0, 4.0]], [[3.0, 0.0], [0.0, 1.0]]]])).mul(10).round().tolist()
    [[0.0, 1.0]]
    """
    lost = _lost("rank_one_loss", weight)
    return lost[..., 1:2].sum(-1) / lost[..., 0].clamp(min=torch.finfo(lost.dtype).tiny)


def rank_one_share(weight: Tensor, tolerance: float = 0.01) -> float:
    """Share of single kernels that are spatially separable: the best N x 1 - 1 x N pair loses at most `tolerance`.

    tolerance    share of a kernel's energy; kernels of zeros count as separable

    >>> rank_one_share(torch.tensor([[[[1.0, 2.0], [2.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]]]]))
    0.5
    """
    return float((rank_one_loss(weight) <= tolerance).double().mean())


def intra_kernel(weight: Tensor, groups: int = 1) -> Tensor:
    """For each output channel, the share of its kernel's energy that one spatial filter explains: (out,).

    The first principal component (not centred) of the matrix (inputs x kernel positions), so exactly what the
    blueprint form keeps at rank 1. Intra-kernel correlation: Haase and Amthor, CVPR 2020, section 3.

    >>> intra_kernel(torch.ones(2, 4, 3, 3)).tolist()
    [1.0, 1.0]
    """
    return _first_component("blueprint", weight, groups)


def cross_kernel(weight: Tensor, groups: int = 1) -> Tensor:
    """For each input channel, the share of energy that one spatial filter explains over all outputs: (in,).

    The first principal component (not centred) of the matrix (outputs x kernel positions), so exactly what the
    depthwise form keeps at rank 1. Cross-kernel correlation: Haase and Amthor, CVPR 2020, section 4.

    >>> cross_kernel(torch.eye(4).reshape(4, 1, 2, 2)).tolist()
    [0.25]
    """
    return _first_component("depthwise", weight, groups)


def _first_component(form: str, weight: Tensor, groups: int) -> Tensor:
    chosen = form_named(form)
    assert isinstance(chosen, MatrixForm)
    shape_of(weight.shape, groups)  # refuses what is no convolution weight
    _require_finite(form, weight)
    energies = singular_energies(chosen.matrices(weight.detach(), groups)).flatten(0, 1)
    return _shares(energies[:, 0], energies.sum(1))


def _shares(parts: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, parts / torch.where(whole > 0, whole, 1.0), 1.0).clamp(max=1.0)


def _require_finite(name: str, weight: Tensor) -> None:
    if not weight.is_floating_point() or not bool(weight.isfinite().all()):
        raise ShapeError(f"{name}: the weight {tuple(weight.shape)} must hold finite floating-point numbers")


def _lost(name: str, weight: Tensor) -> Tensor:
    """(out, in / groups, ranks): the energy that the best approximation of rank 0, 1, ... of each kernel loses."""
    if shape_of(weight.shape).geometry.axes < 2:
        raise ShapeError(f"{name}: the kernels of {tuple(weight.shape)} have one axis; expected two or three")
    _require_finite(name, weight)
    energies = singular_energies(weight.detach().double().flatten(2, -2))
    return energies.flip(-1).cumsum(-1).flip(-1)


@dataclass(frozen=True)
class SeparatedMatrix:
    """The nearest outer product to a matrix: column[i] * row[j].

    error    |M - column row| / |M|, Frobenius norms; 0.0 when exact
    exact    True when the product is the matrix, in exact arithmetic on the numbers as written
    """

    column: tuple[float, ...]
    row: tuple[float, ...]
    error: float
    exact: bool


def separate_matrix(matrix: Sequence[Sequence[float]]) -> SeparatedMatrix:
    """Write a kernel as column times row, or find the nearest kernel that can be.

    matrix     rows of finite numbers, all of one length
    returns    exact: the row in smallest integers, the factor left over in the column, whole numbers as int;
               otherwise the nearest (Eckart-Young), the largest entry of the row being 1
    Raises ShapeError when the rows are ragged, empty or hold anything but finite numbers.

    >>> separate_matrix([[3, 6, 9], [4, 8, 12], [5, 10, 15]])
    SeparatedMatrix(column=(3, 4, 5), row=(1, 2, 3), error=0.0, exact=True)
    >>> round(separate_matrix([[1, 0], [0, 0.5]]).error, 3)
    0.447
    """
    rows = _exact_rows(matrix)
    lead = next((row for row in rows if any(row)), None)
    if lead is None:
        return SeparatedMatrix((0,) * len(rows), (0,) * len(rows[0]), 0.0, True)
    row = _smallest_integers(lead)
    pivot = next(i for i, entry in enumerate(row) if entry)
    column = [values[pivot] / row[pivot] for values in rows]
    if all(
        value == c * r for values, c in zip(rows, column, strict=True) for value, r in zip(values, row, strict=True)
    ):
        return SeparatedMatrix(tuple(map(_plain, column)), tuple(row), 0.0, True)
    return _nearest(torch.tensor([[float(v) for v in values] for values in rows], dtype=torch.float64))


def _nearest(matrix: Tensor) -> SeparatedMatrix:
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    row = right[0]
    peak = row[row.abs().argmax()]
    error = float(values[1:].norm() / values.norm())
    return SeparatedMatrix(tuple((left[:, 0] * values[0] * peak).tolist()), tuple((row / peak).tolist()), error, False)


def _exact_rows(matrix: Sequence[Sequence[float]]) -> list[list[Fraction]]:
    """The numbers as they are written: 0.1 is a tenth, not the nearest binary fraction."""
    rows = [list(row) if isinstance(row, Sequence) else [] for row in matrix]
    good = rows and rows[0] and all(len(row) == len(rows[0]) for row in rows)
    if not good or not all(isinstance(v, int | float) and isfinite(v) for row in rows for v in row):
        raise ShapeError(f"separate_matrix: expected rows of finite numbers, all of one length; got {matrix!r}")
    return [[Fraction(repr(float(v))) if isinstance(v, float) else Fraction(v) for v in row] for row in rows]


def _smallest_integers(values: list[Fraction]) -> list[int]:
    """The shortest integer vector in the direction of `values`."""
    scale = lcm(*(value.denominator for value in values))
    whole = [int(value * scale) for value in values]
    common = gcd(*whole)
    return [value // common for value in whole]


def _plain(value: Fraction) -> float:
    return int(value) if value.denominator == 1 else float(value)
