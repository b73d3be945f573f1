"""One stock convolution of any dimension with any of our geometries: "same" at a stride, uneven padding, padding modes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..errors import ShapeError
from ..geometry import Geometry, Pads

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """`torch.nn.functional.convNd` with our geometry.

    x          (N, C, *size)
    weight     (O, C / groups, *kernel), kernel as in `geometry`
    returns    (N, O, *geometry.output_size(size))
    """
    size = x.shape[2:]
    geometry.output_size(size)  # refuses an empty output with our sentence, not the back end's
    pads = geometry.pads(size)
    even = all(low == high for low, high in pads)
    if padding_mode == "zeros" and even:
        padding = tuple(low for low, _ in pads)
    else:
        x, padding = pad(x, pads, padding_mode), 0
    return CONV[geometry.axes](x, weight, bias, geometry.stride, padding, geometry.dilation, groups)


def pad(x: Tensor, pads: Pads, mode: str = "zeros") -> Tensor:
    """Add (low, high) pixels along each spatial axis. Raises ShapeError for an unknown `mode`."""
    if mode not in PADDING_MODES:
        raise ShapeError(f"padding_mode={mode!r}: expected one of {', '.join(PADDING_MODES)}")
    flat = [p for pair in reversed(pads) for p in pair]
    return F.pad(x, flat, mode="constant" if mode == "zeros" else mode)
