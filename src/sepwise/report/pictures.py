"""Arrays as pictures: kernels, maps and differences of maps, each with its colours. Knows NumPy and Pillow only."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING

import numpy as np

from ..errors import PictureError, ShapeError
from ..extras import require

if TYPE_CHECKING:
    from PIL.Image import Image

# Colours from 0 to +1; the colour of -x is that of +x with red and blue exchanged.
AROUND_WHITE = np.array([(255, 255, 255), (246, 160, 122), (186, 22, 38)], float)
AROUND_BLACK = np.array([(0, 0, 0), (222, 96, 24), (255, 204, 128)], float)
GAP_COLOUR = (150, 156, 166)
TILE = 30  # pixels of the longer side of a kernel, at most; a kernel's cell has at least 2
GAP = 3
DIFFERENCE_SCALE = 0.25  # the difference drawn at full colour


def kernel_grid(array: np.ndarray, limit: int = 64) -> Image:
    """Kernels as a grid of small tiles: white is 0, red positive, blue negative, full colour large.

    array      (out, in, kh, kw), any real dtype; full colour from the 99th percentile of |weight| shown on
    limit      tiles at most; the first input channels of the first outputs are shown, each output's side by side
    returns    an RGB picture; a cell of a kernel is a square of several pixels, without smoothing
    Raises ShapeError when the array is not four-dimensional, empty or not finite, or the limit is below 1.

    >>> sobel = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    >>> kernel_grid(sobel[None, None]).size
    (36, 36)
    """
    array = np.asarray(array, float)
    if array.ndim != 4 or not array.size or not np.isfinite(array).all():
        raise ShapeError(
            f"kernel_grid: got an array {array.shape}, expected finite weights (out, in, kernel height, kernel width)"
        )
    if limit < 1:
        raise ShapeError(f"kernel_grid: limit={limit}, expected at least 1")
    tiles, per_row = _chosen(array, limit)
    rows = -(-len(tiles) // per_row)
    cell = max(2, TILE // max(array.shape[2:]))
    height, width = (n * cell for n in array.shape[2:])
    canvas = np.empty((rows * (height + GAP) + GAP, per_row * (width + GAP) + GAP, 3), np.uint8)
    canvas[:] = GAP_COLOUR
    colours = _diverging(np.clip(tiles / _large(tiles), -1, 1), AROUND_WHITE)
    for number, tile in enumerate(colours.repeat(cell, 1).repeat(cell, 2)):
        top, left = (GAP + i * (n + GAP) for i, n in zip(divmod(number, per_row), (height, width), strict=True))
        canvas[top : top + height, left : left + width] = tile
    return _image(canvas)


def map_picture(array: np.ndarray) -> Image:
    """A map with values from 0 (black) to 1 (white), (H, W), as a grey picture.

    Raises PictureError when it is not two-dimensional or holds other values.

    >>> map_picture(np.array([[0.0, 0.5, 1.0]])).getextrema()
    (0, 255)
    """
    array = _checked("map_picture", array, 0.0)
    return _image((array * 255).round().astype(np.uint8))


def difference_picture(array: np.ndarray) -> Image:
    """A difference of two maps, separable - dense, (H, W) with values from -1 to 1.

    Black is 0, orange positive, blue negative; full colour from 0.25 (`DIFFERENCE_SCALE`) on, as the page states.
    Raises PictureError when it is not two-dimensional or holds other values.

    >>> difference_picture(np.zeros((2, 3))).getpixel((0, 0))
    (0, 0, 0)
    """
    array = _checked("difference_picture", array, -1.0)
    return _image(_diverging(np.clip(array / DIFFERENCE_SCALE, -1, 1), AROUND_BLACK))


def _chosen(array: np.ndarray, limit: int) -> tuple[np.ndarray, int]:
    """Up to `limit` kernels (n, kh, kw) and how many to put in a row, near to a square."""
    out, per_out = array.shape[:2]
    columns = min(per_out, max(isqrt(limit), limit // out))
    outs = min(out, max(1, limit // columns))
    tiles = array[:outs, :columns].reshape(-1, *array.shape[2:])
    height, width = array.shape[2:]
    square = max(1, round((len(tiles) * (height + 0.3) / (width + 0.3)) ** 0.5))
    per_row = columns * max(1, round(square / columns)) if columns <= square or outs > 1 else square
    return tiles, min(per_row, len(tiles))


def _large(values: np.ndarray) -> float:
    """The 99th percentile of |values|, which a few outliers do not move; the largest when most are 0."""
    sizes = np.abs(values)
    return float(np.quantile(sizes, 0.99, method="higher") or sizes.max() or 1.0)


def _diverging(values: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """RGB bytes of values from -1 to 1."""
    at = np.linspace(0, 1, len(stops))
    colours = np.stack([np.interp(np.abs(values), at, stops[:, channel]) for channel in range(3)], -1)
    mirrored = np.where(values[..., None] < 0, colours[..., ::-1], colours)
    return mirrored.round().astype(np.uint8)


def _checked(who: str, array: np.ndarray, least: float) -> np.ndarray:
    array = np.asarray(array, float)
    if array.ndim != 2 or not array.size:
        raise PictureError(f"{who}: got an array {array.shape}, expected (height, width)")
    low, high = float(array.min()), float(array.max())
    if not (least <= low and high <= 1):
        raise PictureError(f"{who}: got values from {low:.4g} to {high:.4g}, expected {least:g} to 1")
    return array


def _image(pixels: np.ndarray) -> Image:
    return require("PIL.Image", "pictures of kernels and maps").fromarray(pixels)
