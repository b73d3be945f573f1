"""Picture sizes as they are written on the command line."""

import re

from ..errors import ShapeError


def read_size(text: str) -> tuple[int, int]:
    """ "320x480" or "224" as (height, width) in pixels. Raises ShapeError for anything else."""
    match = re.fullmatch(r"([1-9][0-9]*)(?:[x×]([1-9][0-9]*))?", text.lower())
    if match is None:
        raise ShapeError(f"--size {text!r}: expected height and width in pixels such as 320x480, or one number")
    return int(match[1]), int(match[2] or match[1])
