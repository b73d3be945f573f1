"""Tensors in, Factors out: dense kernels as chains of cheaper ones. Knows shapes; knows nothing of modules."""

from __future__ import annotations

from typing import TypeGuard

from torch import Tensor

from ..errors import ShapeError, UnsupportedError
from ..geometry import ConvShape
from .blueprint import Blueprint
from .compose import compose
from .cp import CP
from .depthwise import Depthwise
from .factors import Factors, Form, MatrixForm, Rank, energy_kept, shape_of
from .spatial import Spatial
from .spatial_reversed import SpatialReversed
from .tucker import Tucker

FORMS: dict[str, Form] = {
    form.name: form for form in (Depthwise(), Blueprint(), Spatial(), SpatialReversed(), CP(), Tucker())
}

__all__ = [
    "FORMS",
    "Factors",
    "Form",
    "MatrixForm",
    "Rank",
    "check_rank",
    "compose",
    "energy_kept",
    "factorize",
    "form_named",
    "shape_of",
]


def factorize(weight: Tensor, form: str = "depthwise", rank: Rank | None = None, *, groups: int = 1) -> Factors:
    """Write a dense convolution weight as a chain of cheaper convolutions, nearest in the Frobenius norm.

    weight     (out, in / groups, *kernel), one to three spatial axes, any floating dtype
    form       "depthwise"   depthwise -> pointwise             rank = depth multiplier        (optimal)
               "blueprint"   pointwise -> depthwise             rank = filters per output      (optimal)
               "spatial"     all axes but the last -> the last  rank = middle channels / group (optimal)
               "spatial_reversed"  all but the first -> the first  rank = middle channels / group (optimal)
               "cp"          pointwise -> depthwise -> pointwise  rank = middle channels / group
               "tucker"      pointwise -> dense core -> pointwise rank = (core in, core out) / group
    rank       None: the full rank, at which the chain is exact
    groups     groups of the dense convolution
    returns    Factors, with `dense_weight()`, `energy_kept`, `parameters` and `macs(size)`
    Raises UnsupportedError when the form does not exist for this weight, ShapeError when the rank is out of range.

    >>> import torch
    >>> sobel = torch.tensor([[[[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]]])
    >>> factors = factorize(sobel, "spatial", rank=1)
    >>> round(factors.energy_kept, 12), factors.parameters
    (1.0, 6)
    """
    conv = shape_of(weight.shape, groups)
    chosen = form_named(form)
    reason = chosen.why_not(conv)
    if reason:
        raise UnsupportedError(f"factorize: {form}: {reason}")
    if not weight.is_floating_point() or not bool(weight.isfinite().all()):
        raise ShapeError(
            f"factorize: the weight {tuple(weight.shape)} must hold finite floating-point numbers, no NaN or Inf"
        )
    rank = check_rank(chosen, conv, rank)
    weights = tuple(w.to(weight.dtype).contiguous() for w in chosen.factor(weight.detach(), groups, rank))
    steps = chosen.steps(conv, rank)
    kept = energy_kept(weight, compose(weights, [s.groups for s in steps]))
    return Factors(form, rank, groups, steps, weights, kept)


def form_named(name: str) -> Form:
    if name not in FORMS:
        raise UnsupportedError(f"there is no form {name!r}; the forms are {', '.join(FORMS)}")
    return FORMS[name]


def check_rank(form: Form, conv: ConvShape, rank: Rank | None) -> Rank:
    """`rank`, or the full rank for None; ShapeError when it is out of range."""
    full = form.full_rank(conv)
    if rank is None:
        return full
    if isinstance(full, tuple):
        pair = rank if isinstance(rank, tuple | list) else (rank, rank)
        if len(pair) == 2 and all(_is_count(r) and 1 <= r <= f for r, f in zip(pair, full, strict=True)):
            return (pair[0], pair[1])
        expected = f"(in, out) from (1, 1) to {full}"
    else:
        if _is_count(rank) and 1 <= rank <= full:
            return rank
        expected = f"an integer from 1 to {full}"
    raise ShapeError(f"{form.name}: rank={rank!r} for a weight {conv.weight_shape}: expected {expected}")


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
