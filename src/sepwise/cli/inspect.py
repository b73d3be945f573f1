"""`sepwise inspect`: every convolution of a model, how separable it is, and whether to separate it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__, records, report
from ..errors import OutputError
from ..extras import require
from ..files import whole_file
from .outcome import Outcome
from .sizes import read_size

if TYPE_CHECKING:
    from ..measure import Inspection

HELP = "show what is separable in a model, layer by layer, with a verdict and its reason"

PICTURED_LAYERS = 40  # a page of kernels that can still be looked through


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="timm:NAME, zoo:NAME, package.module:factory or file.pt2")
    parser.add_argument("--weights", metavar="FILE", help="weights to fill it with, such as net.safetensors")
    parser.add_argument("--size", metavar="HxW", help="size of its input in pixels, or one number (default: its own)")
    parser.add_argument("--out", metavar="FILE.html", help="also write a page with the kernels as pictures")


def run(args: argparse.Namespace) -> Outcome:
    size = read_size(args.size) if args.size else None
    if args.out is None:
        return _inspected(args, size)[0]
    if Path(args.out).is_dir():
        raise OutputError(
            f"--out {args.out} is a folder; name the file to write, such as {Path(args.out) / 'net.html'}"
        )
    require("jinja2", "the HTML report")
    require("PIL", "pictures of kernels")
    with whole_file(args.out) as aside:  # refuses a place that cannot be written before the work, not after it
        outcome, found = _inspected(args, size)
        _write_page(found, outcome.data["model"], outcome.data["size"], aside)
    outcome.data["report"] = str(args.out)
    return Outcome(outcome.data, f"{outcome.text}\nThe page with the kernels is {args.out}")


def _inspected(args: argparse.Namespace, size: tuple[int, int] | None) -> tuple[Outcome, Inspection]:
    import torch

    from ..measure import inspect
    from ..sources.models import load_model

    loaded = load_model(args.model, args.weights)
    height, width = size or loaded.size
    example = torch.rand(1, loaded.channels, height, width, generator=torch.Generator().manual_seed(0))
    found = inspect(loaded.model, example)
    data = {"model": loaded.name, "weights": args.weights, "size": [height, width], **found.to_dict()}
    untrained = "" if args.weights else ", as built (no --weights)"
    return Outcome(data, f"{loaded.name}, input {height}×{width}×{loaded.channels}{untrained}\n\n{found}"), found


def _write_page(found: Inspection, model: str, size: list[int], path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records.append(folder / "records.jsonl", _records(found, model, size, folder))
        report.build(folder, path)


def _records(found: Inspection, model: str, size: list[int], folder: Path) -> Iterator[records.Record]:
    import torch

    total = {key: value for key, value in found.total().items() if value not in ([], {})}
    about = {"model": model, "command": " ".join(["sepwise", *sys.argv[1:]]), "sepwise": __version__}
    yield records.here("inspection.total", {**about, "torch": torch.__version__, "input_size": size, **total})
    for layer in found.layers:
        yield records.here("inspection.layer", layer.to_dict())
    (folder / "kernels").mkdir()
    pictured = [
        layer.name
        for layer in found.layers
        if max(layer.conv.geometry.kernel) > 1 and bool(found.weights[layer.name].isfinite().all())
    ]
    for number, name in enumerate(pictured[:PICTURED_LAYERS]):
        weight = found.weights[name].double().cpu()
        planes = weight.unsqueeze(2) if weight.ndim == 3 else weight.flatten(2, -2)  # (out, in, rows, columns)
        picture = f"kernels/{number}.png"
        report.pictures.kernel_grid(planes.numpy()).save(folder / picture)
        yield records.here("kernels", {"layer": name, "picture": picture})
