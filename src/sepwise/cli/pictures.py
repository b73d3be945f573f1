"""Which pictures a conversion is fitted on, trained on and measured on."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..conversion import synthetic_batches
from ..errors import PictureError
from ..sources.batches import Batches, batches
from ..sources.models import LoadedModel
from ..sources.pictures import Pictures, find_pictures
from .progress import Progress

FIT_PIXELS = 3_200_000  # calibration pictures hold about as many pixels together, from 16 to 512 of them
SHOWN_PIXELS = 1_600_000  # and the held-out ones as many, from 8 to 1,000
BATCH_PIXELS = 400_000
SYNTHETIC = 128  # pictures made, at most, unless --limit says more
TRAINED_BYTES = 2_000_000_000  # of pictures to train on, as float32


@dataclass(frozen=True)
class Given:
    """Batches to fit on and to train on, pictures to measure on one by one, and why pictures were left out."""

    fit: list[Tensor]
    fitted_on: str
    shown: list[tuple[str, Tensor]]
    shown_on: str
    train: list[Tensor]
    skipped: list[str]


def pictures_for(args: argparse.Namespace, loaded: LoadedModel) -> Given:
    if args.data_free:
        return _data_free(args, loaded)
    found = find_pictures(args.images)
    if len(found) < 2:
        raise PictureError(
            f"{args.images} holds one picture; at least two are needed, one to fit on and one to measure on"
        )
    held_out, limit, most = _counts(args, loaded, len(found))
    to_fit, to_show = found.split(held_out, args.seed)
    pixels = loaded.size[0] * loaded.size[1]
    fit = _prepared(args, loaded, to_fit, limit, max(2, min(64, BATCH_PIXELS // pixels)))
    show = _prepared(args, loaded, to_show, None, 1)
    train = _prepared(args, loaded, to_fit, most, max(2, min(128, BATCH_PIXELS // pixels))) if args.recover else None
    return Given(
        fit.tensors,
        f"{len(fit.names)} pictures of {args.images}",
        _named(show),
        f"{len(show.names)} other pictures of {args.images}",
        train.tensors if train else [],
        [*fit.skipped, *show.skipped],
    )


def _data_free(args: argparse.Namespace, loaded: LoadedModel) -> Given:
    found = find_pictures(args.images) if args.images else None
    held_out, limit, _ = _counts(args, loaded, len(found) if found else 4 * SYNTHETIC)
    limit = args.limit or min(limit, SYNTHETIC)
    with Progress() as progress:
        size = (loaded.channels, *loaded.size)
        made = synthetic_batches(loaded.model, size, limit, seed=args.seed, progress=progress)
        if found:
            show = _prepared(args, loaded, found.split(held_out, args.seed)[1] if len(found) > 1 else found, None, 1)
            shown, shown_on, skipped = _named(show), f"{len(show.names)} pictures of {args.images}", show.skipped
        else:
            others = synthetic_batches(loaded.model, size, max(2, limit // 4), seed=args.seed + 1, progress=progress)
            shown = [(f"synthetic {i}", x[None]) for i, x in enumerate(x for batch in others for x in batch)]
            shown_on, skipped = f"{len(shown)} other synthetic pictures", []
    fitted_on = f"{limit} synthetic pictures, made from the statistics of the normalizations"
    return Given(made, fitted_on, shown, shown_on, made if args.recover else [], skipped)


def _counts(args: argparse.Namespace, loaded: LoadedModel, found: int) -> tuple[int, int, int]:
    """How many pictures to hold out for measuring, to fit on and to train on."""
    pixels = loaded.size[0] * loaded.size[1]
    held_out = args.held_out or min(max(1, found // 4), 1000, max(8, SHOWN_PIXELS // pixels))
    limit = args.limit or min(512, max(16, FIT_PIXELS // pixels))
    return held_out, limit, args.recover_limit or max(2, TRAINED_BYTES // (4 * loaded.channels * pixels))


def _prepared(
    args: argparse.Namespace, loaded: LoadedModel, source: Pictures, limit: int | None, batch_size: int
) -> Batches:
    return batches(
        source,
        limit,
        loaded.size,
        loaded.mean,
        loaded.std,
        batch_size,
        args.seed,
        "skip" if args.skip_broken else "refuse",
        loaded.interpolation,
        loaded.crop,
    )


def _named(shown: Batches) -> list[tuple[str, Tensor]]:
    return list(zip([Path(name).name for name in shown.names], shown.tensors, strict=True))
