"""The extreme Inception module and `BlueprintConv2d`: the same two steps, reached from two sides."""

from __future__ import annotations

from typing import Any

from ...errors import UnsupportedError
from ...geometry import Geometry
from ..layers import BlueprintConv2d
from .redraw import take
from .simplified import ExtremeInception, GroupedInception, ReformulatedInception


def as_blueprint(block: GroupedInception) -> BlueprintConv2d:
    """An Inception drawing with a segment for each output channel, and nothing but its steps, as a BlueprintConv2d.

    The rank is the number of channels in a segment: 1 for ExtremeInception.
    Raises UnsupportedError for fewer segments; when a norm, an activation or a bias stands between, or a norm or an
    activation after: a BlueprintConv2d is its two steps and a bias at the end.

    >>> bare = {"between": None, "between_norm": None, "norm": None, "activation": None}
    >>> as_blueprint(ExtremeInception(8, 12, **bare))
    BlueprintConv2d(8, 12, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), rank=1)
    """
    after, first, out = block.after, block.first, block.out_channels
    for fits, otherwise in (
        (block.segments == out, f"it has {block.segments} segments for {out} output channels"),
        (first["norm"] is None, "a norm stands between its steps; make it with between_norm=None"),
        (first["activation"] is None, "an activation stands between its steps; make it with between=None"),
        (not first["bias"], "a bias stands between its steps; make it without bias=True"),
        (after["norm"] is None, "a norm stands after its steps; make it with norm=None"),
        (after["activation"] is None, "an activation stands after its steps; make it with activation=None"),
    ):
        if not fits:
            raise UnsupportedError(f"as_blueprint: {type(block).__name__} is no BlueprintConv2d: {otherwise}")
    sizes = (block.in_channels, out, block.kernel_size, block.stride, block.kernel_size // 2)
    bias = after["bias"] is not False
    return take(BlueprintConv2d(*sizes, bias=bias, rank=block.mid_channels // out), block)


def from_blueprint(layer: BlueprintConv2d) -> ReformulatedInception:
    """The inverse of `as_blueprint`: an ExtremeInception for rank 1, a ReformulatedInception for a higher one.

    Raises UnsupportedError for what a block cannot have: a kernel that is even or not square, another padding than half
    of it, dilation, groups, a padding mode, strides that differ.

    >>> from_blueprint(BlueprintConv2d(8, 12, 3, padding=1, rank=2)).mid_channels
    24
    """
    shape, geometry = layer.conv, layer.conv.geometry
    kernel, stride = geometry.kernel[0], geometry.stride[0]
    wanted = Geometry.of((kernel, kernel), stride, kernel // 2)
    if geometry != wanted or kernel % 2 == 0 or shape.groups != 1 or layer.padding_mode != "zeros":
        raise UnsupportedError(
            f"from_blueprint: {layer}: expected one odd kernel size, padded by half of it with zeros, one stride, no "
            "dilation, one group"
        )
    assert isinstance(layer.rank, int)
    into, out = shape.in_channels, shape.out_channels
    bare: dict[str, Any] = {"between": None, "between_norm": None, "norm": None, "activation": None}
    bare |= {"stride": stride, "kernel_size": kernel, "bias": None if layer.bias is not None else False}
    if layer.rank == 1:
        return take(ExtremeInception(into, out, **bare), layer)
    return take(ReformulatedInception(into, out, segments=out, mid_channels=out * layer.rank, **bare), layer)
