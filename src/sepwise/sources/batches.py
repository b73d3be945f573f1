"""Pictures as the tensors a network expects: resized, cropped, normalised, in batches."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import PictureError
from ..extras import require
from .pictures import Picture, Pictures, find_pictures

if TYPE_CHECKING:
    from PIL.Image import Image

FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Batches:
    """Prepared pictures in memory.

    tensors    each (up to batch_size, C, H, W), float32
    names      of all pictures, in order
    labels     class indices, None where a picture has none
    skipped    why each broken picture was left out, one sentence each
    """

    tensors: list[Tensor]
    names: list[str]
    labels: list[int | None]
    skipped: list[str]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def batches(
    source: str | os.PathLike[str] | Pictures,
    limit: int | None,
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    seed: int = 0,
    broken: Literal["refuse", "skip"] = "refuse",
    interpolation: str = "bicubic",
    crop: float = 1.0,
) -> Batches:
    """Prepare up to `limit` pictures of a source, chosen and ordered by `seed` alone; None: all, in their own order.

    source      a path (see `find_pictures`) or the Pictures found there
    mean, std   one number for each channel of the tensors: three, or one for a network of grey pictures
    broken      "refuse": the first picture that cannot be read raises; "skip": the next one takes its place
    others      see `prepare`
    Raises PictureError when the source is empty, a picture is broken, or none of them can be read.
    """
    pictures = source if isinstance(source, Pictures) else find_pictures(source)
    if (limit is not None and limit < 1) or batch_size < 1:
        raise PictureError(f"limit={limit}, batch_size={batch_size}: both must be at least 1")
    tensors: list[Tensor] = []
    taken: list[Picture] = []
    skipped: list[str] = []
    for picture in pictures if limit is None else pictures.shuffled(seed):
        if len(taken) == limit:
            break
        try:
            tensors.append(prepare(picture.decode(), size, mean, std, len(mean), interpolation, crop))
        except PictureError as error:
            if broken == "refuse":
                raise
            skipped.append(str(error).partition(";")[0])
            continue
        taken.append(picture)
    if not taken:
        raise PictureError(f"none of the {len(pictures)} pictures can be read; the first: {[*skipped, 'none'][0]}")
    stacked = [torch.stack(tensors[i : i + batch_size]) for i in range(0, len(tensors), batch_size)]
    return Batches(stacked, [p.name for p in taken], [p.label for p in taken], skipped)


def prepare(
    image: Image,
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    channels: int = 3,
    interpolation: str = "bicubic",
    crop: float = 1.0,
) -> Tensor:
    """One picture as float32 (channels, H, W):  (value / 255 - mean) / std.

    The picture is scaled, keeping its proportions, until it just covers (H / crop, W / crop), each side rounded to
    the nearest pixel; the filter is widened when it shrinks (no aliasing). Then the middle H x W is cut out, at
    offset floor((side - wanted) / 2). A picture of just the right size is not resampled.

    size       (H, W) in pixels
    crop       the part of each side that is kept, in (0, 1]
    channels   3: red, green, blue; 1: luma, .299 R + .587 G + .114 B
    Transparent pixels are laid over white; palettes are looked up; 16-bit values are divided by 257.
    Raises PictureError for kinds of pictures without a known white (32-bit values).

    >>> from PIL import Image
    >>> prepare(Image.new("RGB", (40, 20), "white"), (10, 10), (0.5,) * 3, (0.5,) * 3)[:, 0, 0]
    tensor([1., 1., 1.])
    """
    if len(mean) != channels or len(std) != channels or channels not in (1, 3):
        raise PictureError(
            f"mean {tuple(mean)}, std {tuple(std)}: expected {channels} numbers each, for 1 or 3 channels"
        )
    if not 0 < crop <= 1 or min(size) < 1 or interpolation not in FILTERS:
        raise PictureError(
            f"size={size}, crop={crop}, interpolation={interpolation!r}: expected pixels >= 1, a part in (0, 1], "
            f"one of {', '.join(FILTERS)}"
        )
    image = _eight_bits(image).convert("RGB" if channels == 3 else "L")
    height, width = size
    scale = max(height / crop / image.height, width / crop / image.width)
    covered = (_at_least(width, image.width * scale), _at_least(height, image.height * scale))
    if covered != image.size:
        resampling = require("PIL.Image", "resizing pictures").Resampling
        image = image.resize(covered, resampling[interpolation.upper()])
    left, top = (covered[0] - width) // 2, (covered[1] - height) // 2
    cut = np.array(image.crop((left, top, left + width, top + height)), dtype=np.float32)
    pixels = torch.from_numpy(cut.reshape(height, width, channels)).permute(2, 0, 1) / 255
    shape = (channels, 1, 1)
    return ((pixels - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)).float().contiguous()


def _at_least(wanted: int, side: float) -> int:
    return max(wanted, math.floor(side + 0.5))


def _eight_bits(image: Image) -> Image:
    """The picture with 8 bits a channel and without transparency."""
    module = require("PIL.Image", "reading pictures")
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return module.fromarray((np.asarray(image, dtype=np.uint32) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise PictureError(f"a picture of mode {image.mode} has no known white; save it with 8 or 16 bits a channel")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return module.alpha_composite(module.new("RGBA", image.size, "white"), image)
    return image
