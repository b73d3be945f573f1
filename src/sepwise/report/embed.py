"""A picture file as text inside the page: re-encoded small, base64, with its size. Knows Pillow only."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from ..errors import PictureError
from ..extras import require

QUALITY = 90
SMALL = 96  # pictures below this are enlarged on the page, pixel by pixel


@dataclass(frozen=True)
class Embedded:
    """One picture: its address as a data URI and its size in pixels."""

    uri: str
    width: int
    height: int

    @property
    def is_small(self) -> bool:
        return max(self.width, self.height) < SMALL


def photograph(folder: Path, name: str) -> Embedded:
    """A photograph, in the smaller of JPEG and WebP at quality 90 (a very small one exactly, see `exact`)."""
    image = _open(folder, name)
    if max(image.size) < SMALL:
        return exact(folder, name)
    return _smallest(image, {"jpeg": {"quality": QUALITY, "optimize": True}, "webp": {"quality": QUALITY}})


def exact(folder: Path, name: str) -> Embedded:
    """A map or a grid of kernels, every pixel kept, in the smaller of PNG and lossless WebP."""
    return _smallest(_open(folder, name), {"png": {"optimize": True}, "webp": {"lossless": True, "method": 4}})


def _open(folder: Path, name: Any) -> Any:
    if not isinstance(name, str):
        raise PictureError(f"a record names the picture {name!r}; expected a path inside {folder}")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise PictureError(f"the picture {name!r} lies outside the folder of the records, {folder}")
    try:
        with require("PIL.Image", "the pictures of a report").open(path) as image:
            return image.convert("L" if image.mode in ("1", "L") else "RGB")
    except FileNotFoundError:
        raise PictureError(f"the records name the picture {name!r}, which is not in {folder}") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise PictureError(f"the picture {path} cannot be read: {error}") from None


def _smallest(image: Any, formats: dict[str, dict[str, Any]]) -> Embedded:
    encoded = {}
    for name, options in formats.items():
        buffer = BytesIO()
        image.save(buffer, name, **options)
        encoded[name] = buffer.getvalue()
    name = min(encoded, key=lambda name: len(encoded[name]))
    text = base64.b64encode(encoded[name]).decode("ascii")
    return Embedded(f"data:image/{name};base64,{text}", *image.size)
