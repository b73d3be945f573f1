"""`./run bench hed`: the edge detector HED converted without training, and how far its maps agree with the dense ones.

Fitted on unlabelled pictures; F1 at 0.5, pixels pooled, on others, at 320 x 480: 16 of the same source and four
photographs of scikit-image. The reduction is that of the whole network's multiply-accumulates, stem and sides included.
A seed draws the pictures. Finished cells of the same code are not done again: stop it whenever you like.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench import arena
from bench.arena import ROOT, code, rows, run, with_error
from sepwise import records
from sepwise.conversion import convert, plan_from, survey, totals_of
from sepwise.factor import FORMS
from sepwise.measure import Agreement
from sepwise.sources.batches import batches, prepare
from sepwise.sources.models import LoadedModel, load_model
from sepwise.sources.pictures import Picture, Pictures, find_pictures

CROP, BATCH, TESTED = 224, 8, 16
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("bench hed", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", help="folder of pictures or parquet tables; needed unless --table")
    parser.add_argument("--forms", nargs="+", default=["spatial"], choices=sorted(FORMS), metavar="FORM")
    parser.add_argument("--reductions", nargs="+", type=float, default=[4.0, 6.0, 8.0], metavar="TIMES")
    parser.add_argument("--pictures", type=int, default=64, help="to fit on; default 64")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results" / "hed.jsonl")
    return run(parser, arguments, ["images"], measure, table)


def measure(args: argparse.Namespace) -> None:
    loaded = load_model("zoo:hed", "bsds500")
    done = {key_of(r.about) for r in read(args.results)}
    for seed in args.seeds:
        about = {"forms": sorted(args.forms), "pictures": args.pictures, "seed": seed, "code": code()}
        missing = [r for r in args.reductions if key_of(about | {"reduction": r}) not in done]
        if not missing:
            continue
        fit, tested = pictures(loaded, args.images, args.pictures, seed)
        print(f"seed {seed}: surveying", file=sys.stderr, flush=True)
        found = survey(loaded.model, fit, forms=args.forms)
        for reduction in missing:
            plan = plan_from(found, {"macs": 1 / reduction}, totals_of(found, fit[0]))
            agreed = agreement(convert(loaded.model, plan, fit), loaded.model, tested)
            whole = about | {"reduction": reduction, "reached": plan.macs[0] / plan.macs[1], **agreed.to_dict()}
            records.append(args.results, [records.here("hed.f1", agreed.f1, about=whole)])
            print(f"seed {seed}, {reduction:g}x: F1 {agreed.f1:.4f}", file=sys.stderr, flush=True)


def pictures(loaded: LoadedModel, source: str, count: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Batches to fit on, and single pictures to measure on, none in both; the latter are the same for every seed."""
    rest, held_out = find_pictures(source).split(TESTED, seed=0)
    fit = batches(rest, count, (CROP, CROP), loaded.mean, loaded.std, BATCH, seed)
    found = [*held_out, *photographs()]
    return fit.tensors, [prepare(p.decode(), loaded.size, loaded.mean, loaded.std)[None] for p in found]


def photographs() -> Pictures:
    import skimage

    folder = Path(str(skimage.__file__)).parent / "data"
    return Pictures([Picture(name, (folder / name).read_bytes) for name in PHOTOGRAPHS])


@torch.no_grad()
def agreement(converted: nn.Module, dense: nn.Module, tested: Sequence[Tensor]) -> Agreement:
    found = Agreement("maps")
    for x in tested:
        found.update(converted(x), dense(x))
    return found


def key_of(about: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(map(str, (about[name] for name in ("forms", "pictures", "seed", "reduction", "code"))))


def read(path: Path) -> Iterator[records.Record]:
    return arena.read(path, "hed.f1")


def table(path: Path) -> str:
    """Mean and standard error over seeds, of the last code that each row was measured with."""
    lines = ["| forms | pictures | fewer MACs | F1 | mean absolute difference | seeds |", "|---|---|---|---|---|---|"]
    for (forms, count, _), found in rows(read(path), lambda a: ("+".join(a["forms"]), a["pictures"], a["reduction"])):
        off, reached = (np.mean([r.about[n] for r in found]) for n in ("mean_absolute_difference", "reached"))
        f1 = with_error([r.value for r in found], 4)
        lines.append(f"| {forms} | {count} | {reached:.2f}× | {f1} | {off:.4f} | {len(found)} |")
    return "\n".join(lines)
