"""Depthwise and pointwise weights, wherever they came from, as one separable layer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import ModelError
from ..geometry import Geometry, Pads
from ..graph.fold import scale_shift_of
from ..graph.network import NORMS
from ..graph.rewriting import hooked
from ..nn import FactoredConv, SeparableConv1d, SeparableConv2d
from ..nn.dense import DenseConv

LAYERS: dict[int, type[SeparableConv1d] | type[SeparableConv2d]] = {1: SeparableConv1d, 2: SeparableConv2d}


@dataclass(frozen=True)
class Pair:
    """What a separable layer is made of.

    depthwise    (in * multiplier, 1, *kernel), laid by `geometry` on an input padded by `padding_mode`
    pointwise    (out, in * multiplier, 1, ...)
    epsilon      of a norm over the channels of a pixel, without scale and shift, before the pointwise step
    """

    geometry: Geometry
    depthwise: Tensor
    depthwise_bias: Tensor | None
    pointwise: Tensor
    bias: Tensor | None
    multiplier: int = 1
    padding_mode: str = "zeros"
    between: str | None = None
    activation: str | None = None
    epsilon: float | None = None

    @classmethod
    def of_convolutions(cls, depthwise: DenseConv, geometry: Geometry, pointwise: DenseConv) -> Pair:
        """The pair of two layers; the first filters each channel, laid by `geometry`, the second mixes them."""
        multiplier = depthwise.out_channels // depthwise.in_channels
        weights = (depthwise.weight, depthwise.bias, pointwise.weight, pointwise.bias)
        return cls(geometry, *weights, multiplier, depthwise.padding_mode)

    @classmethod
    def of_layer(cls, layer: SeparableConv1d | SeparableConv2d) -> Pair:
        """The pair of a layer that has one, its `between_norm` folded into the depthwise weight."""
        weight, bias = layer.depthwise, layer.depthwise_bias
        if layer.between_norm is not None:
            found = scale_shift_of(layer.between_norm)
            assert found is not None  # `why_not_pair` has refused all others
            scale, shift = found
            bias = (shift if bias is None else shift + bias.detach().double() * scale).to(weight.dtype)
            weight = (weight.detach().double() * scale.view(-1, *[1] * (weight.dim() - 1))).to(weight.dtype)
        assert isinstance(layer.rank, int)
        weights = (weight, bias, layer.pointwise, layer.bias)
        names = (layer.rank, layer.padding_mode, layer.between, layer.activation)
        return cls(layer.conv.geometry, *weights, *names)

    def padded(self, pads: Pads) -> Pair:
        """The same pair on an input that has still to be padded by zeros."""
        geometry = self.geometry
        assert geometry.padding != "same"
        together = tuple((a + c, b + d) for (a, b), (c, d) in zip(geometry.padding, pads, strict=True))
        return replace(self, geometry=replace(geometry, padding=together))

    def normalized(self, weight: Tensor | None, bias: Tensor | None, eps: float) -> Pair:
        """The same pair with a layer norm over channels between; its scale and shift go into the pointwise step."""
        matrix = self.pointwise.detach().double().flatten(1)
        shift = None if self.bias is None else self.bias.detach().double()
        if bias is not None:
            moved = matrix @ bias.detach().double()
            shift = moved if shift is None else shift + moved
        if weight is not None:
            matrix = matrix * weight.detach().double()
        kind = self.pointwise.dtype
        pointwise = matrix.view_as(self.pointwise).to(kind)
        return replace(self, pointwise=pointwise, bias=None if shift is None else shift.to(kind), epsilon=eps)

    def layer(self) -> SeparableConv1d | SeparableConv2d:
        """A layer with copies of these weights, in evaluation mode. Raises ModelError when they hold NaN or Inf."""
        geometry, weight = self.geometry, self.depthwise
        layer = LAYERS[geometry.axes](
            weight.shape[0] // self.multiplier,
            self.pointwise.shape[0],
            geometry.kernel,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            bias=self.bias is not None,
            padding_mode=self.padding_mode,
            device="meta",  # draws no random numbers
            dtype=weight.dtype,
            depth_multiplier=self.multiplier,
            depthwise_bias=self.depthwise_bias is not None,
            between=self.between,
            activation=self.activation,
        ).to_empty(device=weight.device)
        with torch.no_grad():
            for name in ("depthwise", "depthwise_bias", "pointwise", "bias"):
                values = finite(getattr(self, name))
                if values is not None:
                    getattr(layer, name).copy_(values)
        return layer.eval()


def finite(values: Tensor | None) -> Tensor | None:
    """The same. Raises ModelError when it holds NaN or Inf."""
    if values is not None and not bool(values.isfinite().all()):
        raise ModelError("a convolution holds NaN or Inf; repair or reload the weights first")
    return values


def why_not_pair(layer: FactoredConv) -> str | None:
    """The reason a layer of ours is not one depthwise-pointwise operation; None when it is."""
    kind = type(layer).__name__
    if type(layer) not in LAYERS.values():
        return f"a {kind} is no depthwise step followed by a pointwise one in one or two dimensions"
    assert isinstance(layer, SeparableConv1d | SeparableConv2d)
    if layer.conv.groups > 1:
        return f"its pointwise step has {layer.conv.groups} groups; one operation mixes all channels"
    if hooked(layer):
        return "it carries forward hooks, which would be lost"
    norm = layer.between_norm
    if norm is not None and (type(norm) not in NORMS or scale_shift_of(norm) is None or norm._forward_hooks):
        return f"the {type(norm).__name__} between its steps cannot be folded into a weight"
    return None
