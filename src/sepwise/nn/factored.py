"""`FactoredConv`: a chain of convolutions with learned weights that stands for one dense convolution."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..errors import ShapeError, UnsupportedError
from ..factor import FORMS, Factors, Rank, compose, factorize
from ..geometry import ConvShape, Geometry, Padding
from ..ops.conv import check_padding_mode, convolve
from .dense import DenseConv, shape_of_dense, why_not_dense

AXES = {1: "L", 2: "H, W", 3: "D, H, W"}


class FactoredConv(nn.Module):
    """What all layers share; a subclass names its `form` and its number of spatial axes, `ndim`.

        y = step_k(... step_1(x)) + bias,   equal to one convolution with the weight `dense_weight()`

    in_channels, ..., dtype    as in `torch.nn.Conv2d`; padding also (low, high) pairs, and "same" at any stride:
                               output = ceil(input / stride), the odd pixel at the high end, as Keras defines it
    rank        see `sepwise.factorize`; None: the full rank, at which every dense kernel can be written
    input       (N, in_channels, *size), output (N, out_channels, *size'), any floating dtype

    conv        ConvShape of the dense convolution it stands for
    steps       ConvShape of each step, in order; each names the parameter that holds its weight
    bias        (out_channels,), added after the last step, or None
    Raises ShapeError where sizes do not fit.
    """

    form: ClassVar[str]
    ndim: ClassVar[int]
    rank_name: ClassVar[str] = "rank"
    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        rank: Rank | None = None,
    ) -> None:
        super().__init__()
        kernel = (kernel_size,) * self.ndim if isinstance(kernel_size, int) else tuple(kernel_size)
        if len(kernel) != self.ndim:
            raise ShapeError(
                f"{type(self).__name__}: kernel_size={kernel_size!r}: expected one or {self.ndim} integers"
            )
        check_padding_mode(padding_mode)
        form = FORMS[self.form]
        self.conv = ConvShape(in_channels, out_channels, Geometry.of(kernel, stride, padding, dilation), groups)
        self.rank = form.full_rank(self.conv) if rank is None else self._read_rank(rank)
        self.steps = form.steps(self.conv, self.rank)
        self.padding_mode = padding_mode
        for step in self.steps:
            weight = torch.empty(step.weight_shape, device=device, dtype=dtype)
            self.register_parameter(step.name, nn.Parameter(weight))
        held = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", held)
        self._draw()

    @classmethod
    def from_shape(
        cls,
        conv: ConvShape,
        rank: Rank | None = None,
        *,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> Self:
        """A new layer that stands for `conv`, its weights drawn at random. `rank` None: the full rank."""
        g = conv.geometry
        chosen = {cls.rank_name: FORMS[cls.form].full_rank(conv) if rank is None else rank}
        sizes = (conv.in_channels, conv.out_channels, g.kernel, g.stride, g.padding, g.dilation, conv.groups)
        return cls(*sizes, bias, padding_mode, device, dtype, **chosen)

    @classmethod
    def from_conv(cls, conv: nn.Module, rank: Rank | None = None) -> Self:
        """The layer nearest to a dense one: `factorize` its weight, keep its bias, geometry, dtype, device and mode.

        conv    nn.Conv1d, nn.Conv2d or nn.Conv3d; it is not changed
        rank    see `sepwise.factorize`; None: the full rank, at which the layer computes the same function
        Raises UnsupportedError for a transposed convolution, a wrong number of axes, a subclass with a forward of its
        own and computed weights; ShapeError when the rank is out of range.

        >>> from sepwise.nn import SpatialConv2d
        >>> conv, x = nn.Conv2d(3, 8, 3, padding=1).double(), torch.randn(1, 3, 6, 6).double()
        >>> torch.allclose(SpatialConv2d.from_conv(conv)(x), conv(x), atol=1e-10)
        True
        """
        plain = cls._plain(conv)
        return cls.from_factors(factorize(plain.weight, cls.form, rank, groups=plain.groups), plain)

    @classmethod
    def from_factors(cls, factors: Factors, conv: nn.Module) -> Self:
        """The layer with the weights of `factors` and everything else, the bias included, from the dense `conv`.

        Raises UnsupportedError and ShapeError as `from_conv`, and ShapeError when factors are of another form or shape.
        """
        plain = cls._plain(conv)
        weight = plain.weight
        if (factors.form, factors.dense_shape, factors.groups) != (cls.form, tuple(weight.shape), plain.groups):
            raise ShapeError(
                f"{cls.__name__}: the factors ({factors.form}) stand for a weight {factors.dense_shape} in "
                f"{factors.groups} groups; expected {cls.form}, {tuple(weight.shape)} in {plain.groups}"
            )
        shape, has_bias = shape_of_dense(plain), plain.bias is not None
        options: dict[str, Any] = {"bias": has_bias, "padding_mode": plain.padding_mode, "dtype": weight.dtype}
        layer = cls.from_shape(shape, factors.rank, **options, device="meta")  # draws no random numbers
        layer.to_empty(device=weight.device)
        with torch.no_grad():
            for step, values in zip(layer.steps, factors.weights, strict=True):
                getattr(layer, step.name).copy_(values).requires_grad_(weight.requires_grad)
            if layer.bias is not None and plain.bias is not None:
                layer.bias.copy_(plain.bias).requires_grad_(plain.bias.requires_grad)
        return layer.train(plain.training)

    @property
    def weights(self) -> tuple[nn.Parameter, ...]:
        """The parameters of the steps, in order."""
        return tuple(getattr(self, step.name) for step in self.steps)

    def dense_weight(self) -> Tensor:
        """(out, in / groups, *kernel): the weight of the one convolution equal to this layer; differentiable."""
        return compose(self.weights, [step.groups for step in self.steps])

    def dense_bias(self) -> Tensor | None:
        """(out,): the bias that goes with `dense_weight()`."""
        return self.bias

    def reset_parameters(self) -> None:
        """Draw all weights anew.

        Each of k steps is uniform with variance 3^(-1/k) / fan_in, fan_in = in / groups * kernel positions of that
        step. Then independent inputs of variance 1 give outputs of variance 1/3, as do the weights that nn.Conv2d
        draws. The bias is drawn as that of the dense nn.Conv2d: uniform within 1 / sqrt(fan_in of the dense kernel).
        """
        self._draw()

    def forward(self, x: Tensor) -> Tensor:
        self._check_input(x)
        for step in self.steps:
            bias = self.bias if step is self.steps[-1] else None
            x = convolve(x, getattr(self, step.name), bias, step.geometry, step.groups, self.padding_mode)
        return x

    def extra_repr(self) -> str:
        g, size = self.conv.geometry, f"{self.conv.in_channels}, {self.conv.out_channels}"
        parts = [size, f"kernel_size={g.kernel}", f"stride={g.stride}", f"padding={_plain_padding(g)!r}"]
        if g.dilation != (1,) * g.axes:
            parts.append(f"dilation={g.dilation}")
        if self.conv.groups != 1:
            parts.append(f"groups={self.conv.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode!r}")
        return ", ".join([*parts, f"{self.rank_name}={self.rank}"])

    def _draw(self) -> None:
        for step, weight in zip(self.steps, self.weights, strict=True):
            variance = 3 ** (-1 / len(self.steps)) / prod(step.weight_shape[1:])
            nn.init.uniform_(weight, -sqrt(3 * variance), sqrt(3 * variance))
        if self.bias is not None:
            bound = 1 / sqrt(prod(self.conv.weight_shape[1:]))
            nn.init.uniform_(self.bias, -bound, bound)

    def _check_input(self, x: Tensor) -> None:
        if x.dim() != self.ndim + 2 or x.shape[1] != self.conv.in_channels:
            raise ShapeError(
                f"{type(self).__name__}: expected an input (N, {self.conv.in_channels}, {AXES[self.ndim]}), "
                f"got {tuple(x.shape)}"
            )

    def _read_rank(self, rank: Rank) -> Rank:
        """Any positive rank: a layer to be trained may have more than the full rank, which only adds parameters."""
        pair = isinstance(FORMS[self.form].full_rank(self.conv), tuple)
        values = tuple(rank) if isinstance(rank, tuple | list) else (rank,) * (2 if pair else 1)
        if len(values) != (2 if pair else 1) or any(type(v) is not int or v < 1 for v in values):
            expected = "an integer >= 1 or two, (in, out)" if pair else "an integer >= 1"
            raise ShapeError(f"{type(self).__name__}: {self.rank_name}={rank!r}: expected {expected}")
        return (values[0], values[1]) if pair else values[0]

    @classmethod
    def _plain(cls, conv: nn.Module) -> DenseConv:
        reason = why_not_dense(conv, cls.ndim)
        if reason:
            raise UnsupportedError(f"{cls.__name__}: {reason}")
        assert isinstance(conv, DenseConv)
        return conv


def _plain_padding(geometry: Geometry) -> Any:
    if geometry.padding != "same" and all(low == high for low, high in geometry.padding):
        return tuple(low for low, _ in geometry.padding)
    return geometry.padding
