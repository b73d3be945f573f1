"""Sizes of convolutions: output size, padding and multiplications, computed and refused in one place. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from .errors import ShapeError

Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]
Pads = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Geometry:
    """Where a kernel is laid: its size, stride, padding and dilation, one entry for each spatial axis.

        output = (input + low + high - dilation * (kernel - 1) - 1) // stride + 1

    padding    pairs (low, high) in pixels, or "same": output = ceil(input / stride), the odd pixel at the high end
               (the rule of Keras; at stride 1 also that of PyTorch)
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads | Literal["same"]
    dilation: tuple[int, ...]

    @classmethod
    def of(
        cls,
        kernel: Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilation: int | Sequence[int] = 1,
    ) -> Geometry:
        """Read what a user wrote: one int for all axes, one int an axis, (low, high) pairs, "same" or "valid".

        >>> Geometry.of((3, 3), stride=2, padding=1).output_size((7, 8))
        (4, 4)
        """
        axes = len(kernel)
        kernel = _per_axis("kernel_size", kernel, axes, least=1)
        stride = _per_axis("stride", stride, axes, least=1)
        dilation = _per_axis("dilation", dilation, axes, least=1)
        return cls(kernel, stride, _read_padding(padding, axes), dilation)

    @property
    def axes(self) -> int:
        return len(self.kernel)

    @property
    def extent(self) -> tuple[int, ...]:
        """Pixels that one application of the dilated kernel spans, along each axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def pads(self, size: Sequence[int]) -> Pads:
        """Pixels added (low, high) along each axis of an input of `size`."""
        if self.padding != "same":
            return self.padding
        totals = [
            _at_least_zero(e - s + -n % s, least=e - s)  # (ceil(n / s) - 1) * s + e - n
            for n, e, s in zip(size, self.extent, self.stride, strict=True)
        ]
        return tuple((total // 2, total - total // 2) for total in totals)

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the output for an input of spatial `size`.

        Raises ShapeError when the padded input is smaller than the kernel.

        >>> Geometry.of((5, 5)).output_size((12, 12))
        (8, 8)
        """
        if len(size) != self.axes:
            raise ShapeError(
                f"input has {len(size)} spatial axes {tuple(size)}, the kernel {self.kernel} has {self.axes}"
            )
        if self.padding == "same":
            out = tuple(_ceil_div(n, s) for n, s in zip(size, self.stride, strict=True))
        else:
            out = tuple(
                (n + low + high - e) // s + 1
                for n, (low, high), e, s in zip(size, self.padding, self.extent, self.stride, strict=True)
            )
        if any(n < 1 for n in out):
            raise ShapeError(
                f"the output would be empty: input {tuple(size)}, padded by {self.pads(size)}, is smaller than "
                f"the kernel {self.kernel} at dilation {self.dilation}"
            )
        return out

    def along(self, axes: Sequence[int]) -> Geometry:
        """This geometry on `axes`; on the others a kernel of one pixel at stride 1, without padding."""
        return Geometry(
            kernel=tuple(k if a in axes else 1 for a, k in enumerate(self.kernel)),
            stride=tuple(s if a in axes else 1 for a, s in enumerate(self.stride)),
            padding="same"
            if self.padding == "same"
            else tuple(p if a in axes else (0, 0) for a, p in enumerate(self.padding)),
            dilation=tuple(d if a in axes else 1 for a, d in enumerate(self.dilation)),
        )


@dataclass(frozen=True)
class ConvShape:
    """One convolution without its numbers: channels, groups and geometry. `name` is its part in a chain of steps."""

    in_channels: int
    out_channels: int
    geometry: Geometry
    groups: int = 1
    name: str = "conv"

    def __post_init__(self) -> None:
        for field, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels < 1 or channels % self.groups:
                raise ShapeError(f"{self.name}: {field}={channels} must be a positive multiple of groups={self.groups}")

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.geometry.kernel)

    @property
    def parameters(self) -> int:
        """Weights, without the bias."""
        return prod(self.weight_shape)

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-accumulates for one input of spatial `size`: out * in / groups * kernel * output positions.

        >>> ConvShape(3, 256, Geometry.of((5, 5))).macs((12, 12))
        1228800
        """
        return self.parameters * prod(self.geometry.output_size(size))


def chain_macs(steps: Sequence[ConvShape], size: Sequence[int]) -> int:
    """Multiply-accumulates of convolutions applied one after the other to an input of spatial `size`."""
    total = 0
    for step in steps:
        total += step.macs(size)
        size = step.geometry.output_size(size)
    return total


def _per_axis(name: str, value: int | Sequence[int], axes: int, least: int) -> tuple[int, ...]:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(values) != axes or any(not isinstance(v, int) or v < least for v in values):
        raise ShapeError(f"{name}={value!r}: expected one integer >= {least}, or {axes} of them")
    return values


def _read_padding(padding: Padding, axes: int) -> Pads | Literal["same"]:
    if padding == "same":
        return "same"
    if padding == "valid":
        return ((0, 0),) * axes
    values: tuple[Any, ...] = (padding,) * axes if isinstance(padding, int) else tuple(padding)
    pairs = tuple(v if isinstance(v, tuple | list) else (v, v) for v in values)
    good = len(pairs) == axes and all(len(p) == 2 and all(isinstance(v, int) and v >= 0 for v in p) for p in pairs)
    if not good:
        raise ShapeError(
            f'padding={padding!r}: give "same", "valid", one integer >= 0, {axes} of them or {axes} (low, high) pairs'
        )
    return tuple((p[0], p[1]) for p in pairs)


def _ceil_div(n: int, s: int) -> int:
    # `-(-n // s)` on a symbolic size leaves guards that torch.export cannot solve.
    return (n + s - 1) // s


def _at_least_zero(n: int, least: int) -> int:
    # `max` on a symbolic size would fix the size during torch.export; this form stays symbolic. `least` bounds n.
    return n if least >= 0 else (n + abs(n)) // 2
