"""`unit`: a convolution with the norm and the activation that follow it, the brick of all blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, TypedDict

from torch import nn

from ...ops.activations import check_activation

Norm = Callable[[int], nn.Module]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
    "hardsigmoid": nn.Hardsigmoid,
}


class After(TypedDict):
    """What goes with a convolution: a bias (None: where no norm follows), a norm and an activation, or None."""

    bias: bool | None
    norm: Norm | None
    activation: str | None


def has_bias(after: After) -> bool:
    """Whether the convolution that `after` goes with has a bias."""
    return after["norm"] is None if after["bias"] is None else after["bias"]


def conv(
    in_channels: int, out_channels: int, kernel_size: int = 1, *, stride: int = 1, groups: int = 1, after: After
) -> nn.Conv2d:
    """A convolution that keeps the size at stride 1, with a bias as `after` says."""
    half, bias = kernel_size // 2, has_bias(after)
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, half, groups=groups, bias=bias)


def unit(
    in_channels: int, out_channels: int, kernel_size: int = 1, *, stride: int = 1, groups: int = 1, after: After
) -> nn.Sequential:
    """Convolution `conv`, then `norm` and `activation` where there are any, under these names."""
    first = conv(in_channels, out_channels, kernel_size, stride=stride, groups=groups, after=after)
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv=first)
    if after["norm"] is not None:
        parts["norm"] = after["norm"](out_channels)
    if after["activation"] is not None:
        parts["activation"] = activation_module(after["activation"])
    return nn.Sequential(parts)


def between(who: str, after: After, norm: Norm | Literal["same"] | None, activation: str | None) -> After:
    """What stands between two convolutions of a block, "same" being what stands after it.

    A bias is there when asked for, and by default where an activation follows without a norm: nothing at all stands
    between the steps of a linear chain. Raises UnsupportedError, naming `who`, for an unknown activation.
    """
    activation = after["activation"] if activation == "same" else activation
    norm = after["norm"] if norm == "same" else norm
    check_activation(who, "between", activation)
    default = norm is None and activation is not None
    return {"bias": default if after["bias"] is None else after["bias"], "norm": norm, "activation": activation}


def activation_module(name: str | None) -> nn.Module:
    """The activation of this name as a module; `nn.Identity` for None."""
    return nn.Identity() if name is None else ACTIVATIONS[name]()


def norm_module(norm: Norm | None, channels: int) -> nn.Module:
    """The norm of so many channels; `nn.Identity` for None."""
    return nn.Identity() if norm is None else norm(channels)
