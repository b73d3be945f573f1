"""What most networks are built of: convolution, norm, activation in a row, their widths and their first weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..errors import ShapeError
from ..nn import SeparableConv2d

Activation = Callable[[int], nn.Module]


def relu(channels: int) -> nn.ReLU:
    """In place: what a norm gave is needed by nobody else, neither forward nor backward."""
    return nn.ReLU(inplace=True)


def unit(
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    stride: int = 1,
    *,
    padding: int | None = None,
    separable: bool = False,
    activation: Activation | None = relu,
    dropout: float = 0.0,
    **between: Any,
) -> nn.Sequential:
    """convolution without bias -> dropout -> norm -> activation: (N, in, H, W) -> (N, out, H', W').

    padding       None: kernel // 2, which keeps the size of an odd kernel at stride 1
    separable     a `SeparableConv2d` in place of the dense convolution; `between` are its further arguments
    activation    called with the number of channels; None: the unit ends with the norm
    dropout       0: no such layer

    >>> import torch
    >>> unit(3, 8, stride=2)(torch.zeros(1, 3, 9, 9)).shape
    torch.Size([1, 8, 5, 5])
    """
    conv = SeparableConv2d if separable else nn.Conv2d
    padding = kernel // 2 if padding is None else padding
    layers = nn.Sequential()
    layers.add_module("conv", conv(in_channels, out_channels, kernel, stride, padding, bias=False, **between))
    if dropout:
        layers.add_module("dropout", nn.Dropout(dropout))
    layers.add_module("norm", nn.BatchNorm2d(out_channels))
    if activation is not None:
        layers.add_module("activation", activation(out_channels))
    return layers


def scaled(channels: int, width: float) -> int:
    """`width` times as many channels, rounded, at least one. Raises ShapeError when width is not positive."""
    if width <= 0:
        raise ShapeError(f"width={width}: expected a positive factor for the number of channels, such as 0.5")
    return max(1, round(channels * width))


def draw_weights(model: nn.Module) -> None:
    """Draw all weights of convolutions and linear layers as He et al. do; biases become 0.

        variance = 2 / fan_in,   1 / fan_in for a pointwise step that follows its depthwise step without activation

    He, Zhang, Ren and Sun, Delving Deep into Rectifiers, ICCV 2015, section 2.2, the forward case.
    """
    for module in model.modules():
        if isinstance(module, SeparableConv2d):
            nn.init.kaiming_normal_(module.depthwise)
            nn.init.kaiming_normal_(module.pointwise, nonlinearity="relu" if module.between else "linear")
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
