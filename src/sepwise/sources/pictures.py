"""Where pictures come from: a folder of files, or parquet tables that hold them. Nothing is decoded until asked for."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PictureError
from ..extras import require

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
COLUMNS = ("img", "image")


@dataclass(frozen=True)
class Picture:
    """One picture that has not been decoded yet.

    name     the file, or the table and its row
    read     gives the encoded bytes
    label    class index when the table has one
    """

    name: str
    read: Callable[[], bytes]
    label: int | None = None

    def decode(self) -> Image:
        """The picture as Pillow sees it, upright: the rotation noted by a camera is applied.

        Raises PictureError naming the file when it cannot be read.
        """
        image_module = require("PIL.Image", "reading pictures")
        operations = require("PIL.ImageOps", "reading pictures")
        try:
            image = image_module.open(BytesIO(self.read()))
            image.load()
            return operations.exif_transpose(image)
        except (OSError, ValueError, SyntaxError, image_module.DecompressionBombError) as error:
            reason = "it is no picture" if isinstance(error, image_module.UnidentifiedImageError) else error
            raise PictureError(
                f"{self.name} cannot be read: {reason}; remove it, or pass --skip-broken to go on without it"
            ) from None


class Pictures(Sequence[Picture]):
    """A list of pictures, in the order of their names or rows.

    class_names    of the labels, where the source knows them; empty elsewhere
    """

    def __init__(self, pictures: Sequence[Picture], class_names: Sequence[str] = ()) -> None:
        self._pictures, self.class_names = tuple(pictures), tuple(class_names)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index):  # int -> Picture, slice -> tuple of them
        return self._pictures[index]

    def shuffled(self, seed: int = 0) -> Pictures:
        """The same pictures in an order that depends on nothing but their number and the seed."""
        return Pictures(random.Random(seed).sample(self._pictures, len(self)), self.class_names)

    def split(self, held_out: int, seed: int = 0) -> tuple[Pictures, Pictures]:
        """Two lists without a common picture: those to fit on, and `held_out` others to show and to measure on.

        Raises PictureError when nothing would be left to fit on.
        """
        if not 0 <= held_out < len(self):
            raise PictureError(f"{held_out} pictures held out of {len(self)}: at least one must be left to fit on")
        mixed = self.shuffled(seed)
        return Pictures(mixed[held_out:], self.class_names), Pictures(mixed[:held_out], self.class_names)


def find_pictures(source: str | os.PathLike[str]) -> Pictures:
    """The pictures of a folder (its files, without sub-folders), of a parquet table, or of a folder of such tables.

    A table has a column `img` or `image` of {bytes, path}, and may have `label`: the layout of the dataset hub.
    Raises PictureError when there is no such place, or no picture in it.
    """
    path = Path(source)
    if not path.exists():
        raise PictureError(f"there is no {path}; give a folder of pictures or a parquet file")
    if path.is_file():
        return _of_tables([path])
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    pictures = [p for p in files if p.suffix.lower() in SUFFIXES]
    if pictures:
        return Pictures([Picture(str(p), p.read_bytes) for p in pictures])
    tables = [p for p in files if p.suffix == ".parquet"]
    if tables:
        return _of_tables(tables)
    raise PictureError(f"the folder {path} holds no picture ({' '.join(SUFFIXES)}) and no parquet file")


def _of_tables(paths: Sequence[Path]) -> Pictures:
    parquet = require("pyarrow.parquet", "reading pictures from parquet")
    arrow = require("pyarrow", "reading pictures from parquet")
    found: list[Picture] = []
    class_names: list[str] = []
    for path in paths:
        try:
            schema = parquet.read_schema(path)
            names = schema.names
            column = next((c for c in COLUMNS if c in names), None)
            if column is None:
                raise PictureError(f"{path} has the columns {', '.join(names)}; expected one named img or image")
            table = parquet.read_table(path, columns=[column, "label"] if "label" in names else [column])
        except (arrow.ArrowInvalid, OSError) as error:
            if isinstance(error, PictureError):
                raise
            raise PictureError(f"{path} is not a parquet table: {error}") from None
        kind = table.schema.field(column).type
        if not (arrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
            raise PictureError(f"{path}: the column {column} holds {kind}; expected {{bytes, path}}")
        labels = table["label"].to_pylist() if "label" in names else [None] * len(table)
        found += [Picture(f"{path}, row {i}", _Cell(table[column], i), label) for i, label in enumerate(labels)]
        class_names = class_names or _class_names(schema.metadata or {})
    if not found:
        raise PictureError(f"{', '.join(map(str, paths))}: the table has no rows")
    return Pictures(found, class_names)


def _class_names(metadata: Mapping[bytes, bytes]) -> list[str]:
    """The names of the labels as the dataset hub notes them in a table, WordNet's numbers left out; [] without them."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
        return [re.sub(r"^n\d{8}_", "", name).replace("_", " ") for name in names]
    except (KeyError, TypeError, ValueError):
        return []


@dataclass(frozen=True)
class _Cell:
    """One row of a column of {bytes, path}."""

    column: Sequence
    row: int

    def __call__(self) -> bytes:
        content = self.column[self.row]["bytes"].as_py()
        if content is None:
            raise ValueError("the row holds no bytes")
        return content
