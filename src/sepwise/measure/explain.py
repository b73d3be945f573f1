"""The arithmetic of separable convolutions with the numbers put in: every form of one convolution, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import gcd, prod
from typing import Any

import torch

from ..errors import ShapeError
from ..factor import Form, check_rank, form_named
from ..geometry import ConvShape, Geometry, Padding
from .separability import SeparatedMatrix, separate_matrix


@dataclass(frozen=True)
class Step:
    """One convolution of a chain, laid on an input of spatial `size`."""

    conv: ConvShape
    size: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its output, channels last: (height, width, channels)."""
        return (*self.conv.geometry.output_size(self.size), self.conv.out_channels)

    @property
    def multiplications(self) -> int:
        return self.conv.macs(self.size)

    @property
    def formula(self) -> str:
        """outputs × kernel×input channels seen × output positions = multiplications."""
        kernel = times((*self.conv.geometry.kernel, self.conv.in_channels // self.conv.groups))
        return f"{self.conv.out_channels} × {kernel} × {times(self.shape[:-1])} = {self.multiplications:,}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.conv.name,
            "shape": list(self.shape),
            "multiplications": self.multiplications,
            "parameters": self.conv.parameters,
            "formula": self.formula,
            "weight_shape": list(self.conv.weight_shape),
            "groups": self.conv.groups,
        }


@dataclass(frozen=True)
class Account:
    """One form of the convolution.

    title      as a person calls it
    steps      its chain; empty when the form does not exist here
    why_not    the reason, as a sentence; None when it exists
    dense      multiplications of the dense convolution, for the ratio
    """

    title: str
    steps: tuple[Step, ...]
    why_not: str | None
    dense: int

    @property
    def multiplications(self) -> int:
        return sum(step.multiplications for step in self.steps)

    @property
    def parameters(self) -> int:
        return sum(step.conv.parameters for step in self.steps)

    @property
    def ratio(self) -> float:
        """Multiplications over those of the dense convolution."""
        return self.multiplications / self.dense

    def to_dict(self) -> dict[str, Any]:
        if self.why_not:
            return {"title": self.title, "why_not": self.why_not, "steps": []}
        return {
            "title": self.title,
            "why_not": None,
            "steps": [step.to_dict() for step in self.steps],
            "multiplications": self.multiplications,
            "parameters": self.parameters,
            "ratio": self.ratio,
        }


@dataclass(frozen=True)
class Explanation:
    """All forms of one convolution: "dense", "spatial_each", "spatial", "spatial_reversed", "depthwise", "blueprint",
    "grouped"."""

    conv: ConvShape
    size: tuple[int, ...]
    forms: dict[str, Account]
    notes: tuple[str, ...]

    @property
    def output(self) -> tuple[int, ...]:
        return self.forms["dense"].steps[0].shape

    def to_dict(self) -> dict[str, Any]:
        geometry = self.conv.geometry
        return {
            "input": [*self.size, self.conv.in_channels],
            "kernel": list(geometry.kernel),
            "stride": list(geometry.stride),
            "padding": [list(pair) for pair in geometry.pads(self.size)],
            "dilation": list(geometry.dilation),
            "outputs": self.conv.out_channels,
            "output": list(self.output),
            "forms": {name: account.to_dict() for name, account in self.forms.items()},
            "notes": list(self.notes),
        }


def explain(
    size: Sequence[int],
    in_channels: int,
    kernel: Sequence[int],
    outputs: int,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    depth_multiplier: int = 1,
    groups: int | None = None,
    rank: int | None = None,
) -> Explanation:
    """Count the multiplications of a dense convolution and of its cheaper forms.

        multiplications of a step = outputs * kernel positions * input channels each output sees * output positions

    size                spatial size of the input, pixels; kernel has as many entries
    depth_multiplier    filters for each input channel in the depthwise form
    groups              of the grouped form; None: the most that divide both numbers of channels
    rank                of "spatial" and "spatial_reversed" (middle channels; None: as many as input channels) and
                        of "blueprint" (None: 1)
    Raises ShapeError when the sizes do not fit each other.

    >>> forms = explain((12, 12), 3, (5, 5), 256).forms
    >>> forms["dense"].multiplications, [step.multiplications for step in forms["depthwise"].steps]
    (1228800, [4800, 49152])
    """
    for name, value in (("depth_multiplier", depth_multiplier), ("groups", groups), ("rank", rank)):
        if value is not None and value < 1:
            raise ShapeError(f"{name}={value}: expected an integer >= 1")
    dense = ConvShape(in_channels, outputs, Geometry.of(kernel, stride, padding, dilation), name="dense")
    total = dense.macs(size)
    forms = {"dense": Account("dense", _laid((dense,), size), None, total)}

    def add(name: str, title: str, steps: Callable[[], tuple[ConvShape, ...]]) -> None:
        # Refusals are part of the lesson: the other forms are still explained.
        try:
            forms[name] = Account(title, _laid(steps(), size), None, total)
        except ShapeError as error:
            forms[name] = Account(title, (), str(error), total)

    add("spatial_each", "spatially separable, each kernel = column · row", lambda: _each_kernel(dense))
    for name, order in (("spatial", ""), ("spatial_reversed", " in the other order")):
        middle = rank or _middle_channels(name, dense)
        title = f"spatially separable{order}, {middle} middle channels"
        add(name, title, partial(_low_rank, name, dense, middle))
    add(
        "depthwise",
        f"depthwise separable, depth multiplier {depth_multiplier}",
        lambda: _multiplied(dense, depth_multiplier),
    )
    add("blueprint", f"blueprint separable, rank {rank or 1}", lambda: _low_rank("blueprint", dense, rank or 1))
    parts = groups or gcd(in_channels, outputs)
    grouped = ConvShape(in_channels, outputs, dense.geometry, parts, "grouped")
    add("grouped", f"grouped, {parts} groups" if parts > 1 else "grouped", lambda: _grouped(grouped))
    return Explanation(dense, tuple(size), forms, tuple(_notes(dense, tuple(size), grouped, depth_multiplier)))


def _laid(steps: Sequence[ConvShape], size: Sequence[int]) -> tuple[Step, ...]:
    laid = []
    for conv in steps:
        laid.append(Step(conv, tuple(size)))
        size = conv.geometry.output_size(size)
    return tuple(laid)


def _existing(name: str, dense: ConvShape) -> Form:
    form = form_named(name)
    reason = form.why_not(dense)
    if reason:
        raise ShapeError(reason)
    return form


def _low_rank(name: str, dense: ConvShape, rank: int) -> tuple[ConvShape, ...]:
    form = _existing(name, dense)
    return form.steps(dense, check_rank(form, dense, rank))


def _middle_channels(name: str, dense: ConvShape) -> int:
    """As many as input channels, but no more than reproduce every kernel."""
    form = form_named(name)
    full = dense.in_channels if form.why_not(dense) else form.full_rank(dense)
    assert isinstance(full, int)
    return min(dense.in_channels, full)


def _multiplied(dense: ConvShape, multiplier: int) -> tuple[ConvShape, ...]:
    # Any multiplier, as layers allow; `check_rank` would stop at the one that already reproduces every kernel.
    return _existing("depthwise", dense).steps(dense, multiplier)


def _each_kernel(dense: ConvShape) -> tuple[ConvShape, ...]:
    """Every one of the in * out kernels as a column, then a row: all columns, then all rows of one output summed."""
    _existing("spatial", dense)
    geometry, last = dense.geometry, dense.geometry.axes - 1
    pairs = dense.in_channels * dense.out_channels
    return (
        ConvShape(dense.in_channels, pairs, geometry.along(range(last)), dense.in_channels, "columns"),
        ConvShape(pairs, dense.out_channels, geometry.along((last,)), dense.out_channels, "rows"),
    )


def _grouped(grouped: ConvShape) -> tuple[ConvShape, ...]:
    if grouped.groups == 1:
        raise ShapeError(
            f"groups must divide both {grouped.in_channels} input and {grouped.out_channels} output channels; "
            "only 1 does, and one group is the dense convolution"
        )
    return (grouped,)


def _notes(dense: ConvShape, size: tuple[int, ...], grouped: ConvShape, multiplier: int) -> list[str]:
    kernel, channels = dense.geometry.kernel, dense.in_channels
    notes = []
    if not form_named("spatial").why_not(dense):
        first, second = (step.geometry.kernel for step in _each_kernel(dense))
        notes.append(
            f"Spatially separable: one {times(kernel)} kernel takes {prod(kernel)} multiplications at a position; as "
            f"{times(first)} then {times(second)} it takes {prod(first)} + {prod(second)} = "
            f"{prod(first) + prod(second)}. Only kernels of rank 1 allow that."
        )
    notes.append(
        f"The depthwise step is a grouped convolution with as many groups as input channels, {channels}: each filter "
        "sees one channel."
    )
    if grouped.groups == channels > 1:
        notes.append(
            f"Here the grouped form has {channels} groups too: it is a depthwise convolution with depth multiplier "
            f"{grouped.out_channels // channels}, and no step mixes the channels."
        )
    if (size, channels, kernel, dense.out_channels, multiplier) == ((12, 12), 3, (5, 5), 256, 1) and dense.geometry == (
        Geometry.of((5, 5))
    ):
        notes.append(
            'This is a well-known example. "52,952" multiplications and "12×12×256" outputs, sometimes seen for it, '
            "are slips: 4,800 + 49,152 = 53,952, and without padding a 5×5 kernel has 8×8 places on 12×12 pixels."
        )
    return notes


@dataclass(frozen=True)
class ExplainedMatrix:
    """One kernel as column times row, exactly or as nearly as can be.

    separated    the two vectors; see `SeparatedMatrix`
    rank         how many column · row pairs add up to the kernel exactly
    """

    matrix: tuple[tuple[float, ...], ...]
    separated: SeparatedMatrix
    rank: int

    @property
    def nearest(self) -> list[list[float]]:
        return [[c * r for r in self.separated.row] for c in self.separated.column]

    def to_dict(self) -> dict[str, Any]:
        rows, columns = len(self.matrix), len(self.matrix[0])
        return {
            "matrix": [list(row) for row in self.matrix],
            "separable": self.separated.exact,
            "column": list(self.separated.column),
            "row": list(self.separated.row),
            "nearest": self.nearest,
            "error": self.separated.error,
            "rank": self.rank,
            "multiplications": {"dense": rows * columns, "separable": rows + columns},
        }


def explain_matrix(matrix: Sequence[Sequence[float]]) -> ExplainedMatrix:
    """Is a kernel spatially separable, and if not, how near is the nearest that is?

    Raises ShapeError when the rows differ in length or hold anything but finite numbers.

    >>> found = explain_matrix([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    >>> found.separated.column, found.separated.row, found.rank
    ((1, 2, 1), (-1, 0, 1), 1)
    """
    separated = separate_matrix(matrix)
    values = torch.tensor([[float(v) for v in row] for row in matrix], dtype=torch.float64)
    rank = min(1, int(values.count_nonzero())) if separated.exact else int(torch.linalg.matrix_rank(values))
    return ExplainedMatrix(tuple(tuple(row) for row in matrix), separated, rank)


def times(sizes: Sequence[int]) -> str:
    """Sizes as people write them.

    >>> times((12, 12, 3))
    '12×12×3'
    """
    return "×".join(str(n) for n in sizes)
