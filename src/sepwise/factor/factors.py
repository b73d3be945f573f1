"""`Factors`: the numbers of a factorized convolution, whatever the form; and what every form must offer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..errors import ShapeError, UnsupportedError
from ..geometry import ConvShape, Geometry, Padding, chain_macs
from .compose import compose

Rank = int | tuple[int, int]


class Form(Protocol):
    """One way to write a convolution as a chain of cheaper ones. A form knows shapes and weights, not modules."""

    name: str

    def why_not(self, conv: ConvShape) -> str | None:
        """The reason this form does not exist for `conv`, as a sentence; None when it does."""
        ...

    def full_rank(self, conv: ConvShape) -> Rank:
        """The smallest rank known to reproduce every kernel of this shape exactly."""
        ...

    def steps(self, conv: ConvShape, rank: Rank) -> tuple[ConvShape, ...]:
        """The chain of convolutions, in order, that stands for `conv`; names are the parameters' names."""
        ...

    def factor(self, weight: Tensor, groups: int, rank: Rank) -> tuple[Tensor, ...]:
        """The weights of the steps, float64, nearest to `weight` in the Frobenius norm."""
        ...

    def starts(self, weight: Tensor, groups: int) -> Callable[[Rank], tuple[Tensor, ...]]:
        """Like `factor`, and near it, at a fraction of its work: where fits to data start from, rank after rank."""
        ...


@runtime_checkable
class MatrixForm(Form, Protocol):
    """A form whose answer is closed: each of its `matrices`, cut at `rank` singular values."""

    def matrices(self, weight: Tensor, groups: int) -> Tensor:
        """`weight` rearranged as (..., m, n), float64, every number of it once."""
        ...


@dataclass(frozen=True)
class Factors:
    """A dense weight written as a chain of convolutions.

    form           "depthwise", "blueprint", "spatial", "spatial_reversed", "cp" or "tucker"
    rank           see `factorize`
    groups         groups of the dense convolution
    steps          shape of each step, at stride 1 without padding
    weights        one tensor for each step, dtype and device of the dense weight
    energy_kept    1 - |W - dense_weight()|^2 / |W|^2, a fraction; 1.0 for an all-zero W
    """

    form: str
    rank: Rank
    groups: int
    steps: tuple[ConvShape, ...]
    weights: tuple[Tensor, ...]
    energy_kept: float

    def dense_weight(self) -> Tensor:
        """(out, in / groups, *kernel): the kernel that the chain stands for."""
        return compose(self.weights, [step.groups for step in self.steps])

    @property
    def parameters(self) -> int:
        """Number of weights in all steps."""
        return sum(step.parameters for step in self.steps)

    def macs(
        self,
        size: Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilation: int | Sequence[int] = 1,
    ) -> int:
        """Multiply-accumulates of the chain on one input of spatial `size` (pixels)."""
        from . import FORMS  # the registry imports the forms, which import this file

        dense = shape_of(self.dense_shape, self.groups, Geometry.of(self.dense_shape[2:], stride, padding, dilation))
        return chain_macs(FORMS[self.form].steps(dense, self.rank), size)

    def pairs(self) -> tuple[Factors, ...]:
        """The depthwise form at rank m as m chains of rank 1, whose outputs and dense weights add up to this one's.

        The same function, and often faster: a grouped convolution with a multiplier above 1 takes a slow path in
        PyTorch, m plain depthwise convolutions do not. `energy_kept` of each is its share of this one's.
        Raises UnsupportedError for every other form.

        >>> import torch
        >>> from sepwise.factor import factorize
        >>> factors = factorize(torch.randn(4, 2, 3, 3, dtype=torch.float64), "depthwise", rank=3)
        >>> dense = sum(pair.dense_weight() for pair in factors.pairs())
        >>> bool(torch.allclose(dense, factors.dense_weight()))
        True
        """
        if self.form != "depthwise" or not isinstance(self.rank, int):
            raise UnsupportedError(f"pairs: only the depthwise form is a sum of pairs, this is {self.form!r}")
        from . import FORMS  # as in `macs`

        steps = FORMS[self.form].steps(shape_of(self.dense_shape, self.groups), 1)
        groups = [step.groups for step in steps]
        depthwise = self.weights[0].unflatten(0, (-1, self.rank)).unbind(1)
        pointwise = self.weights[1].unflatten(1, (-1, self.rank)).unbind(2)
        pairs = [(d.contiguous(), p.contiguous()) for d, p in zip(depthwise, pointwise, strict=True)]
        energies = [float(compose(pair, groups).detach().double().square().sum()) for pair in pairs]
        whole = sum(energies)
        return tuple(
            Factors(self.form, 1, self.groups, steps, pair, self.energy_kept * (energy / whole if whole else 1.0))
            for pair, energy in zip(pairs, energies, strict=True)
        )

    @property
    def dense_shape(self) -> tuple[int, ...]:
        kernel = tuple(max(k) for k in zip(*(step.geometry.kernel for step in self.steps), strict=True))
        return (self.steps[-1].out_channels, self.steps[0].in_channels // self.groups, *kernel)


def shape_of(weight_shape: Sequence[int], groups: int = 1, geometry: Geometry | None = None) -> ConvShape:
    """The ConvShape of a weight (out, in / groups, *kernel), at stride 1 without padding unless told otherwise."""
    if not 3 <= len(weight_shape) <= 5:
        raise ShapeError(
            f"a convolution weight is (out, in / groups, *kernel) with one to three spatial axes; "
            f"got shape {tuple(weight_shape)}"
        )
    out, per_group, *kernel = weight_shape
    return ConvShape(per_group * groups, out, geometry or Geometry.of(kernel), groups)


def cube_of(weight: Tensor, groups: int) -> Tensor:
    """A weight (out, in / groups, *kernel) as (groups, out / groups, in / groups, kernel positions), float64."""
    return weight.double().unflatten(0, (groups, -1)).flatten(3)


def one_pixel(conv: ConvShape) -> str | None:
    """Why a kernel of one pixel is not worth separating, as `Form.why_not` says it; None for any larger kernel."""
    if prod(conv.geometry.kernel) > 1:
        return None
    return f"a kernel of one pixel {conv.geometry.kernel} has nothing to separate; the tucker form can lower its rank"


def energy_kept(weight: Tensor, approximation: Tensor) -> float:
    """1 - |W - A|^2 / |W|^2 in float64; 1.0 when both are zero.

    >>> import torch
    >>> energy_kept(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]))
    0.36
    """
    weight, approximation = weight.detach().double(), approximation.detach().double()
    total = weight.square().sum()
    lost = (weight - approximation).square().sum()
    if total == 0:
        return 1.0 if lost == 0 else float("-inf")
    return float(1 - lost / total)
