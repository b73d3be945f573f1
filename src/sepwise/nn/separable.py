"""`SeparableConv1d`, `2d` and `3d`: depthwise then pointwise, and what may stand between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..errors import UnsupportedError
from ..factor import Rank
from ..geometry import Geometry, Padding
from ..ops import separable_conv2d
from ..ops.activations import activate, check_activation
from ..ops.conv import convolve, pad
from .factored import FactoredConv

Initializer = Callable[[Tensor], Any]


class _SeparableConv(FactoredConv):
    """Depthwise, then pointwise; see `SeparableConv2d`."""

    form, rank_name = "depthwise", "depth_multiplier"
    depthwise: nn.Parameter
    pointwise: nn.Parameter
    depthwise_bias: nn.Parameter | None
    between_norm: nn.Module | None

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
        depth_multiplier: Rank = 1,
        depthwise_bias: bool = False,
        between: str | None = None,
        between_norm: Callable[[int], nn.Module] | None = None,
        activation: str | None = None,
        depthwise_initializer: Initializer | None = None,
        pointwise_initializer: Initializer | None = None,
        bias_initializer: Initializer | None = None,
    ) -> None:
        sizes = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        super().__init__(*sizes, bias, padding_mode, device, dtype, rank=depth_multiplier)
        check_activation(type(self).__name__, "between", between)
        check_activation(type(self).__name__, "activation", activation)
        mid = self.steps[0].out_channels
        held = nn.Parameter(torch.empty(mid, device=device, dtype=dtype)) if depthwise_bias else None
        self.register_parameter("depthwise_bias", held)
        self.between, self.activation = between, activation
        self.between_norm = None if between_norm is None else between_norm(mid).to(device=device, dtype=dtype)
        self.depthwise_initializer = depthwise_initializer
        self.pointwise_initializer = pointwise_initializer
        self.bias_initializer = bias_initializer
        self._initialize_parts()

    @property
    def depth_multiplier(self) -> Rank:
        """Depthwise filters for each input channel."""
        return self.rank

    @classmethod
    def from_keras(cls, layer: Any) -> Self:
        """The layer that computes what a built Keras `SeparableConv1D` or `SeparableConv2D` computes (docs/keras.md).

        layer    needs only `get_config()` and `get_weights()`; Keras itself is not imported
        returns  takes (N, C, *size) whatever the data_format of the Keras layer, which holds the same weights
        Raises UnsupportedError for an activation that has no counterpart here, a layer of another kind, or one
        without weights.
        """
        from .keras import from_keras

        return from_keras(cls, layer)

    def to_keras(self, data_format: str | None = None) -> Any:
        """A built `keras.layers.SeparableConv1D` or `SeparableConv2D` with these weights (docs/keras.md).

        data_format    "channels_first", "channels_last" or None: Keras's own default
        Needs the extra `keras`. The back end is the one Keras is set to; torch when nothing sets it.
        Raises UnsupportedError, in one sentence, for what Keras cannot express.
        """
        from .keras import to_keras

        return to_keras(self, data_format)

    def dense_weight(self) -> Tensor:
        """(out, in / groups, *kernel): the weight of the one convolution equal to both steps; differentiable.

        `activation`, if any, follows that convolution. Raises UnsupportedError when `between` or `between_norm` is set.
        """
        self._check_linear()
        return super().dense_weight()

    def dense_bias(self) -> Tensor | None:
        """(out,): bias + pointwise @ depthwise_bias, the bias that goes with `dense_weight()`; None without either."""
        self._check_linear()
        if self.depthwise_bias is None:
            return self.bias
        groups = self.conv.groups
        mixed = (self.pointwise.flatten(1).unflatten(0, (groups, -1)) * self.depthwise_bias.view(groups, 1, -1)).sum(2)
        return mixed.flatten() if self.bias is None else mixed.flatten() + self.bias

    def reset_parameters(self) -> None:
        """Draw all weights anew: by the initializers given, otherwise as `FactoredConv`; depthwise_bias becomes 0."""
        super().reset_parameters()
        self._initialize_parts()

    def forward(self, x: Tensor) -> Tensor:
        self._check_input(x)
        depthwise, pointwise = self.steps
        if self.between_norm is None and pointwise.groups == 1 and self.ndim < 3:
            return self._one_op(x)
        x = convolve(x, self.depthwise, self.depthwise_bias, depthwise.geometry, depthwise.groups, self.padding_mode)
        if self.between_norm is not None:
            x = self.between_norm(x)
        x = convolve(activate(x, self.between), self.pointwise, self.bias, pointwise.geometry, pointwise.groups)
        return activate(x, self.activation)

    def extra_repr(self) -> str:
        parts = [super().extra_repr()]
        if self.depthwise_bias is not None:
            parts.append("depthwise_bias=True")
        parts += [f"{n}={getattr(self, n)!r}" for n in ("between", "activation") if getattr(self, n) is not None]
        return ", ".join(parts)

    def _one_op(self, x: Tensor) -> Tensor:
        """Through `separable_conv2d`; a line of pixels is a picture of height 1."""
        depthwise, pointwise, geometry = self.depthwise, self.pointwise, self.conv.geometry
        if self.padding_mode != "zeros":
            x = pad(x, geometry.pads(x.shape[2:]), self.padding_mode)
            geometry = Geometry.of(geometry.kernel, geometry.stride, 0, geometry.dilation)
        if self.ndim == 1:
            x, depthwise, pointwise = x.unsqueeze(2), depthwise.unsqueeze(2), pointwise.unsqueeze(2)
            geometry = _as_picture(geometry)
        y = separable_conv2d(
            x,
            depthwise,
            pointwise,
            self.bias,
            depthwise_bias=self.depthwise_bias,
            between=self.between,
            activation=self.activation,
            stride=geometry.stride,
            padding=geometry.padding,
            dilation=geometry.dilation,
        )
        return y.squeeze(2) if self.ndim == 1 else y

    def _initialize_parts(self) -> None:
        if self.depthwise_bias is not None:
            nn.init.zeros_(self.depthwise_bias)
        for initializer, part in (
            (self.depthwise_initializer, self.depthwise),
            (self.pointwise_initializer, self.pointwise),
            (self.bias_initializer, self.bias),
        ):
            if initializer is not None and part is not None:
                with torch.no_grad():
                    initializer(part)

    def _check_linear(self) -> None:
        if self.between is not None:
            raise UnsupportedError(
                f"{type(self).__name__}: between={self.between!r} is not linear, so no dense kernel equals both steps"
            )
        if self.between_norm is not None:
            raise UnsupportedError(
                f"{type(self).__name__}: a {type(self.between_norm).__name__} stands between the steps, so no dense "
                "kernel alone equals them"
            )


class SeparableConv1d(_SeparableConv):
    """Depthwise, then pointwise, in one dimension: (N, in, L) -> (N, out, L'); see `SeparableConv2d`.

    depthwise   (in * depth_multiplier, 1, K)
    pointwise   (out, in * depth_multiplier / groups, 1)
    """

    ndim = 1


class SeparableConv2d(_SeparableConv):
    """`separable_conv2d` with learned weights: filter each channel on its own, then mix channels.

        y = activation(bias + pointwise @ between(between_norm(depthwise * x + depthwise_bias)))

    in_channels, ..., dtype    as in `torch.nn.Conv2d`; groups are those of the pointwise step; padding also
                               (low, high) pairs, and "same" at any stride, as Keras defines it
    depth_multiplier    filters for each input channel, any integer >= 1
    depthwise_bias      True: a bias for each of the in_channels * depth_multiplier channels between, at first 0
    between_norm        called with the number of channels between, gives the module that follows the depthwise step,
                        e.g. `nn.BatchNorm2d`
    between, activation           None, "relu", "relu6", "silu", "hardswish", "gelu", "elu", "sigmoid" or
                        "hardsigmoid"; after the norm, and after the pointwise step
    depthwise_initializer, pointwise_initializer, bias_initializer
                        called with the parameter, to fill it in place, e.g. `nn.init.xavier_uniform_`; None: see
                        `reset_parameters`
    depthwise           (in * depth_multiplier, 1, KH, KW), channel c at c * depth_multiplier + 0, 1, ...
    pointwise           (out, in * depth_multiplier / groups, 1, 1)

    docs/keras.md says which argument of Keras's SeparableConv2D corresponds to what.

    >>> layer = SeparableConv2d(3, 8, 3, stride=2, padding="same", depth_multiplier=2, between="relu")
    >>> layer
    SeparableConv2d(3, 8, kernel_size=(3, 3), stride=(2, 2), padding='same', depth_multiplier=2, between='relu')
    >>> tuple(layer(torch.ones(1, 3, 7, 7)).shape)
    (1, 8, 4, 4)
    """

    ndim = 2


class SeparableConv3d(_SeparableConv):
    """Depthwise, then pointwise, in three dimensions: (N, in, D, H, W) -> (N, out, D', H', W'); see `SeparableConv2d`.

    depthwise   (in * depth_multiplier, 1, KD, KH, KW)
    pointwise   (out, in * depth_multiplier / groups, 1, 1, 1)
    """

    ndim = 3


def _as_picture(geometry: Geometry) -> Geometry:
    (kernel,), (stride,), (dilation,) = geometry.kernel, geometry.stride, geometry.dilation
    padding = geometry.padding if geometry.padding == "same" else ((0, 0), *geometry.padding)
    return Geometry((1, kernel), (1, stride), padding, (1, dilation))
