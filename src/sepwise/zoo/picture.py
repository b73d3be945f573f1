"""How the networks for classification want their pictures: a size in pixels, the mean and deviation of ImageNet."""

from __future__ import annotations

from typing import Any


def picture_of(size: int) -> dict[str, Any]:
    """What the attribute `picture` of a network holds, as `sepwise.sources` reads it.

    size    height and width, pixels

    >>> picture_of(32)["size"]
    (32, 32)
    """
    return {"size": (size, size), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
