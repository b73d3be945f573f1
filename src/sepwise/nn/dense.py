"""The dense layers of PyTorch, `nn.Conv1d` to `nn.Conv3d`: read, or refused in a sentence."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized

from ..geometry import ConvShape, Geometry

CONV: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
DenseConv = nn.Conv1d | nn.Conv2d | nn.Conv3d


def why_not_dense(conv: nn.Module, ndim: int) -> str | None:
    """The reason `conv` is not a plain convolution of `ndim` spatial axes with weights of its own; None if it is."""
    stock = CONV[ndim]
    if isinstance(conv, _ConvTransposeNd):
        return f"{type(conv).__name__} is a transposed convolution, which no chain of these steps equals"
    if not isinstance(conv, stock):
        return f"expected an nn.{stock.__name__}, got {type(conv).__name__}"
    if is_parametrized(conv, "weight") or "weight" not in conv._parameters:
        return "its weight is computed (parametrization, weight norm or pruning); make that permanent first"
    if type(conv).forward is not stock.forward or type(conv)._conv_forward is not stock._conv_forward:
        return f"{type(conv).__name__} computes something of its own; only a plain nn.{stock.__name__} can be replaced"
    if isinstance(conv.weight, UninitializedParameter):
        return f"{type(conv).__name__} has no weights yet; run it on one input first"
    return None


def shape_of_dense(conv: DenseConv) -> ConvShape:
    """Channels, groups and geometry of a plain convolution layer."""
    padding = conv.padding if isinstance(conv.padding, str) else tuple(conv.padding)
    geometry = Geometry.of(conv.kernel_size, conv.stride, padding, conv.dilation)
    return ConvShape(conv.in_channels, conv.out_channels, geometry, conv.groups)
