"""One stock convolution of any dimension and geometry: "same" at a stride, uneven padding, padding modes."""

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
    Raises ShapeError when the output would be empty or `pad` refuses.
    """
    size = x.shape[2:]
    geometry.output_size(size)  # refuses an empty output with our sentence, not the back end's
    pads = geometry.pads(size)
    if _even(geometry) and (padding_mode == "zeros" or all(high == 0 for _, high in pads)):
        padding = tuple(low for low, _ in pads)
    else:
        x, padding = pad(x, pads, padding_mode), 0
    return CONV[geometry.axes](x, weight, bias, geometry.stride, padding, geometry.dilation, groups)


def pad(x: Tensor, pads: Pads, mode: str = "zeros") -> Tensor:
    """Add (low, high) pixels along each spatial axis.

    Raises ShapeError for an unknown `mode`, and where the picture is too small to be reflected or wrapped that far.
    """
    check_padding_mode(mode)
    if mode in ("reflect", "circular"):
        spare = 1 if mode == "reflect" else 0
        for n, (low, high) in zip(x.shape[2:], pads, strict=True):
            if low > n - spare or high > n - spare:
                raise ShapeError(
                    f'padding_mode="{mode}": cannot pad {n} pixels by {(low, high)}; at most {n - spare} on either side'
                )
    flat = [p for pair in reversed(pads) for p in pair]
    return F.pad(x, flat, mode="constant" if mode == "zeros" else mode)


def check_padding_mode(mode: str) -> None:
    if mode not in PADDING_MODES:
        raise ShapeError(f"padding_mode={mode!r}: expected one of {', '.join(PADDING_MODES)}")


def _even(geometry: Geometry) -> bool:
    """Whether low = high for inputs of every size, so that an exported graph does not depend on the size traced."""
    if geometry.padding != "same":
        return all(low == high for low, high in geometry.padding)
    return all(s == 1 and e % 2 == 1 for s, e in zip(geometry.stride, geometry.extent, strict=True))
