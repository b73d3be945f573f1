"""What a network and its fused twin answer to pictures: agreement, accuracy, and where they differ most."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import records
from ..conversion.agreed import answer_of
from ..errors import PictureError
from ..fusion import FusedNetwork
from ..fusion.stock import stock_calls
from ..measure import measure_latency
from ..sources.batches import prepare
from ..sources.models import LoadedModel
from ..sources.pictures import Picture, find_pictures
from .latency import runner
from .pictured import image_of, top
from .progress import Progress

SHOWN, TOP, ROUNDS = 12, 5, 7


@dataclass(frozen=True)
class Seen:
    """One picture, and how far apart both networks answer it.

    largest        |fused - original|, the largest of the output
    relative       the same, over the largest |original|
    best           the first class, before and after; None for a network that answers no classes
    """

    picture: Picture
    largest: float
    relative: float
    best: tuple[int, int] | None


@dataclass(frozen=True)
class Compared:
    """Both networks on all pictures: plain facts for programs, and what a page shows."""

    facts: dict[str, Any]
    worst: list[Seen]
    class_names: Sequence[str]
    loaded: LoadedModel
    fused: FusedNetwork

    def __str__(self) -> str:
        told = self.facts
        lines = [f"on {told['count']} pictures of {told['source']}:"]
        if told["same"] is not None:
            lines.append(f"  same first answer on {told['same']} of {told['count']}")
        lines.append(f"  outputs differ by {told['relative']:.1e} of the largest of a picture, at most")
        if told["right_before"] is not None:
            lines.append(
                f"  right first answer on {told['right_before']} of {told['labelled']} before, "
                f"{told['right_after']} after"
            )
        if told["skipped"]:
            lines.append(f"  {len(told['skipped'])} left out, the first: {told['skipped'][0]}")
        return "\n".join(lines)

    @torch.no_grad()
    def records(self, folder: Path, form: str) -> Iterator[records.Record]:
        """All facts, and the pictures that differ most, written into `folder`; timed against the stock `form`."""
        yield records.here("fusion.pictures", self.facts)
        (folder / "pictures").mkdir()
        for number, seen in enumerate(self.worst):
            path = f"pictures/{number}.png"
            x = _prepared(seen.picture, self.loaded)
            image_of(x[0], self.loaded).save(folder / path)
            both = [answer_of(answer)[0] for answer in (self.loaded.model(x), self.fused(_cast(x, self.fused)))]
            tops = [top(scores, TOP) if seen.best else [] for scores in both]
            yield records.here(
                "fusion.picture",
                {
                    "name": Path(seen.picture.name).name,
                    "picture": path,
                    "label": self._named(seen.picture.label),
                    "relative": seen.relative,
                    "before": [[self._named(i), share] for i, share in tops[0]],
                    "after": [[self._named(i), share] for i, share in tops[1]],
                    **_times(self.loaded.model, self.fused, x, form),
                },
            )

    def _named(self, number: int | None) -> str | None:
        if number is None:
            return None
        return self.class_names[number] if number < len(self.class_names) else f"class {number}"


def check_options(args: argparse.Namespace) -> None:
    """Refuse what nobody would read. Raises PictureError."""
    given = {"--labels": args.labels, "--limit": args.limit, "--skip-broken": args.skip_broken or None}
    named = [option for option, value in given.items() if value is not None]
    if named and not args.pictures:
        raise PictureError(f"{named[0]} says nothing without --pictures: name a folder of pictures, or leave it out")
    if args.limit is not None and args.limit < 1:
        raise PictureError(f"--limit {args.limit}: give the number of pictures, at least 1")


@torch.no_grad()
def compared(args: argparse.Namespace, loaded: LoadedModel, fused: FusedNetwork) -> Compared:
    """Answer every picture with both networks.

    Raises PictureError where there is none to read, and for names that are fewer or more than the classes.
    """
    found = find_pictures(args.pictures)
    chosen = found if args.limit is None else found.shuffled()[: args.limit]
    given = None if args.labels is None else read_names(args.labels)
    seen, skipped, classes = _answers(chosen, loaded, fused, args.skip_broken)
    if given is not None and len(given) != classes:
        answers = "no classes" if classes is None else f"{classes} classes"
        raise PictureError(f"{args.labels} names {len(given)} classes, the network answers {answers}")
    labelled = [s for s in seen if s.best and s.picture.label is not None]
    known = labelled if labelled and max(s.picture.label or 0 for s in labelled) < (classes or 0) else []
    facts = {
        "source": str(args.pictures),
        "count": len(seen),
        "classes": classes,
        "same": sum(len(set(s.best)) == 1 for s in seen if s.best) if classes else None,
        "largest": max(s.largest for s in seen),
        "relative": max(s.relative for s in seen),
        "labelled": len(known),
        "right_before": sum(s.best[0] == s.picture.label for s in known if s.best) if known else None,
        "right_after": sum(s.best[1] == s.picture.label for s in known if s.best) if known else None,
        "skipped": skipped,
        "preparation": preparation(loaded),
    }
    worst = sorted(seen, key=lambda s: (s.best is not None and s.best[0] != s.best[1], s.relative), reverse=True)
    return Compared(facts, worst[:SHOWN], given or (found.class_names if classes else ()), loaded, fused)


def preparation(loaded: LoadedModel) -> dict[str, Any]:
    """How a picture becomes an input, and who says so."""
    kind, _, name = loaded.name.partition(":")
    return {
        "size": list(loaded.size),
        "resized": [round(side / loaded.crop) for side in loaded.size],
        "interpolation": loaded.interpolation,
        "mean": list(loaded.mean),
        "std": list(loaded.std),
        "by": f"timm's pretrained_cfg of {name}"
        if kind == "timm"
        else "the network, or ImageNet's where it says nothing",
    }


def read_names(path: str) -> list[str]:
    """The names of classes in a file, one a line. Raises PictureError when it cannot be read or a line is empty."""
    try:
        names = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PictureError(f"--labels {path} cannot be read: {error}") from None
    if not names or not all(name.strip() for name in names):
        raise PictureError(f"--labels {path}: expected the name of a class in every line, the first for class 0")
    return [name.strip() for name in names]


def _answers(
    pictures: Sequence[Picture], loaded: LoadedModel, fused: FusedNetwork, skip_broken: bool
) -> tuple[list[Seen], list[str], int | None]:
    """What was seen of each picture, why others were left out, and the number of classes."""
    seen: list[Seen] = []
    skipped: list[str] = []
    classes = None
    with Progress() as progress:
        for number, picture in enumerate(pictures, start=1):
            try:
                x = _prepared(picture, loaded)
            except PictureError as error:
                if not skip_broken:
                    raise
                skipped.append(str(error).partition(";")[0])
                continue
            before, after = (answer_of(given).double() for given in (loaded.model(x), fused(_cast(x, fused))))
            classes = before.shape[1] if before.dim() == 2 and before.shape[1] > 1 else None
            largest = float((after - before).abs().max())
            best = (int(before.argmax()), int(after.argmax())) if classes else None
            seen.append(Seen(picture, largest, largest / (float(before.abs().max()) or 1.0), best))
            progress("answer", number, len(pictures))
    if not seen:
        raise PictureError(f"none of the {len(pictures)} pictures can be read; the first: {[*skipped, 'none'][0]}")
    return seen, skipped, classes


def _prepared(picture: Picture, loaded: LoadedModel) -> Tensor:
    options = (loaded.size, loaded.mean, loaded.std, loaded.channels, loaded.interpolation, loaded.crop)
    return prepare(picture.decode(), *options)[None]


def _cast(x: Tensor, network: nn.Module) -> Tensor:
    """An input in the dtype of a network's weights."""
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), x.dtype)
    return x.to(dtype)


def _times(model: nn.Module, fused: FusedNetwork, x: Tensor, form: str) -> dict[str, float]:
    """Milliseconds of both networks on one picture, medians of rounds that take turns."""
    calls = {"before_ms": stock_calls(model, x)[form], "after_ms": runner(fused, _cast(x, fused))}
    return {name: timing.median_ms for name, timing in measure_latency(calls, ROUNDS, warmup=1).items()}
