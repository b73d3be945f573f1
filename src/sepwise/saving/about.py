"""What a file of ours says of itself: its kind, its format, and the pictures that its network takes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from .. import __version__
from ..errors import ModelError, OutputError, UnsupportedError
from ..sources.exported import MARK

FORMAT = 1
WRITERS = {"fused": "save_fused", "compiled": "save_compiled"}


@dataclass(frozen=True)
class About:
    """kind      "fused": a program with our operators; "compiled": machine code that calls them
    shape     of one picture, without the batch
    dtype     of pictures, as "float32"
    torch, sepwise    versions that wrote it
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    torch: str
    sepwise: str
    format: int = FORMAT


def about(kind: str, example: Tensor) -> About:
    """Of a network that is saved now."""
    dtype = str(example.dtype).removeprefix("torch.")
    return About(kind, tuple(example.shape[1:]), dtype, torch.__version__, __version__)


def extra_files(told: About) -> dict[str, str]:
    """As `extra_files` of a .pt2 archive."""
    return {MARK.removeprefix("extra/"): json.dumps(asdict(told))}


def read_about(path: Path, kind: str) -> About:
    """What a file says of itself, once it is known to be whole and of this kind.

    Raises ModelError for a file that is missing, damaged or of another kind, UnsupportedError for another format.
    """
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    writer = WRITERS[kind]
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch reads changed bytes without a word
            marks = [name for name in archive.namelist() if name.partition("/")[2] == MARK]
            text = archive.read(marks[0]) if marks and broken is None else b""
    except Exception as error:  # every way of being malformed has its own
        raise ModelError(f"{path} is damaged, or no file that sepwise.{writer} wrote: {error}") from None
    if broken is not None:
        raise ModelError(f"{path} is damaged: {broken} is not what was written; copy or save it again")
    if not marks:
        raise ModelError(f"{path} was not written by sepwise.{writer}; give a file that was")
    try:
        told = json.loads(text)
        if told["format"] != FORMAT:
            raise UnsupportedError(
                f"{path} has format {told['format']}, written by sepwise {told['sepwise']}; sepwise {__version__} "
                f"reads format {FORMAT}: save the network again, or load it with a version that reads it"
            )
        found = About(**told | {"shape": tuple(map(int, told["shape"]))})
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{path} is damaged: what it says of itself cannot be read") from None
    if found.kind != kind:
        raise ModelError(
            f"{path} was written by sepwise.{WRITERS.get(found.kind, found.kind)}, not by sepwise.{writer}"
        )
    return found


def check_name(path: Path, suffix: str) -> None:
    """Refuse, before any work is done, a name that loaders of such files would not take."""
    if path.suffix != suffix:
        raise OutputError(f"{path}: name a file that ends in {suffix}")


def described(shape: Sequence[int], dtype: str) -> str:
    """ "(N, 3, 224, 224) in float32"."""
    return f"(N, {', '.join(map(str, shape))}) in {dtype}"
