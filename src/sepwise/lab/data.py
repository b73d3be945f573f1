"""CIFAR-10 in memory: all pictures as bytes, made ready for a network a batch at a time."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..conversion.calibration import shifted_and_mirrored
from ..errors import PictureError
from ..extras import require
from ..files import whole_file
from ..sources.pictures import find_pictures

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's training pictures
HUB = "uoft-cs/cifar10"
SPLITS = {"train": "plain_text/train-00000-of-00001.parquet", "test": "plain_text/test-00000-of-00001.parquet"}


@dataclass(frozen=True)
class Labelled:
    """Pictures with their classes.

    images    (N, 3, H, W) uint8
    labels    (N,) int64
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def some(self, count: int | None, seed: int) -> Labelled:
        """`count` of them, drawn by the seed; None: all of them."""
        if count is None or count >= len(self):
            return self
        rows = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count]
        return Labelled(self.images[rows], self.labels[rows])

    def batch(self, rows: Tensor, random: torch.Generator | None = None) -> Tensor:
        """These rows as a network reads them, float32: mean 0 and deviation 1; with `random`, shifted and mirrored."""
        return ready(self.images[rows], random)


def ready(images: Tensor, random: torch.Generator | None = None) -> Tensor:
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (MEAN, STD))
    x = (images.float() / 255 - mean) / std
    return (x if random is None else shifted_and_mirrored(x, random)).contiguous(memory_format=torch.channels_last)


def cifar10(source: str, kept: Path | None = None) -> tuple[Labelled, Labelled]:
    """Training and test pictures.

    source    a folder with train.parquet and test.parquet (columns img or image, and label), or "hub": downloaded once
              from the dataset hub
    kept      folder where the decoded pictures are kept for the next process; None: nowhere
    Raises PictureError when they are not there or have no labels, MissingExtraError without Pillow or pyarrow.
    """
    train, test = (_read(path, kept) for path in _tables(source))
    return train, test


def _tables(source: str) -> tuple[Path, Path]:
    if source == "hub":
        hub: Any = require("huggingface_hub", "downloading CIFAR-10")
        try:
            paths = [hub.hf_hub_download(HUB, name, repo_type="dataset") for name in SPLITS.values()]
        except Exception as error:
            raise PictureError(
                f"CIFAR-10 cannot be downloaded ({type(error).__name__}); pass --data FOLDER with train.parquet and "
                "test.parquet"
            ) from None
        return Path(paths[0]), Path(paths[1])
    found = [Path(source) / f"{split}.parquet" for split in SPLITS]
    missing = [path for path in found if not path.is_file()]
    if missing:
        raise PictureError(
            f"there is no {missing[0]}: pass --data FOLDER with train.parquet and test.parquet of CIFAR-10, or "
            "--data hub to download them"
        )
    return found[0], found[1]


def _read(table: Path, kept: Path | None) -> Labelled:
    if kept is None:
        return _decoded(table)
    stat = table.resolve().stat()
    name = hashlib.sha256(f"{table.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]
    path = kept / f"{table.stem}-{name}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as held:
            return Labelled(torch.from_numpy(held["images"]), torch.from_numpy(held["labels"]))
    found = _decoded(table)
    os.makedirs(kept, exist_ok=True)
    with whole_file(path) as aside:
        np.savez(aside, images=found.images.numpy(), labels=found.labels.numpy())
    return found


def _decoded(table: Path) -> Labelled:
    pictures = find_pictures(table)
    if any(p.label is None for p in pictures):
        raise PictureError(f"{table} has no column `label`")
    pixels = np.stack([np.asarray(p.decode().convert("RGB")) for p in pictures])
    labels = torch.tensor([p.label for p in pictures])
    return Labelled(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels)
