"""`./run bench hed`: the edge detector HED converted without training, and how far its maps agree with the dense ones.

Fitted on unlabelled pictures; F1 at 0.5, pixels pooled, on others, at 320 x 480: 16 of the same source and four
photographs of scikit-image. The reduction is that of the whole network's multiply-accumulates, stem and sides included.
A seed draws the pictures. Finished cells of the same code are not done again: stop it whenever you like.

--minutes 30 trains what was converted so long, at the threads that PyTorch has, without labels, on all pictures that
are not measured on; a training that was stopped goes on.

--budget latency plans for the time of one picture of 320 x 480 instead: TIMES faster than the dense network in its own
fastest eager form in stock PyTorch, with each number of threads. The converted network runs through `sepwise.fuse`, and
is timed against the dense one in the best of PyTorch, OpenVINO, ONNX Runtime and, with --compiled, torch.compile; then
both in bfloat16.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench import arena
from bench.arena import ROOT, code, recovered, rows, run, with_error
from sepwise import records
from sepwise.conversion import Plan, Survey, convert, plan_from, survey, totals_of
from sepwise.conversion.planning import plan_within
from sepwise.errors import SepwiseError
from sepwise.factor import FORMS
from sepwise.fusion import fuse
from sepwise.measure import Agreement, fastest, ratio
from sepwise.saving.runtimes import interleaved, runtimes
from sepwise.sources.batches import batches, prepare
from sepwise.sources.models import LoadedModel, load_model
from sepwise.sources.pictures import Picture, Pictures, find_pictures

CROP, BATCH, TESTED = 224, 8, 16
TRAINED = 4096  # pictures, at most, in memory at once
ROUNDS = 15
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("bench hed", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", help="folder of pictures or parquet tables; needed unless --table")
    parser.add_argument("--forms", nargs="+", default=["spatial"], choices=sorted(FORMS), metavar="FORM")
    parser.add_argument("--reductions", nargs="+", type=float, default=[4.0, 6.0, 8.0], metavar="TIMES")
    parser.add_argument("--budget", default="macs", choices=["macs", "latency"], help="default macs")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N", help="for latency; default 1 2")
    parser.add_argument("--compiled", action="store_true", help="latency: time the dense network compiled as well")
    parser.add_argument("--pictures", type=int, default=64, help="to fit on; default 64")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument("--minutes", type=float, default=0, help="of recovery; default 0: none")
    parser.add_argument("--precision", default="bf16-mixed", help="of recovery; default bf16-mixed")
    parser.add_argument("--kept", type=Path, default=ROOT / ".cache", help="folder for recoveries begun")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results" / "hed.jsonl")
    return run(parser, arguments, ["images"], measure, table)


def measure(args: argparse.Namespace) -> None:
    loaded = load_model("zoo:hed", "bsds500")
    done = {key_of(r.about) for r in read(args.results)}
    columns: list[dict[str, Any]] = [{"minutes": args.minutes} if args.minutes else {}]
    if args.budget == "latency":
        columns = [{"budget": "latency", "threads": n} for n in args.threads]
    for seed in args.seeds:
        about = {
            "forms": sorted(args.forms),
            "pictures": args.pictures,
            "seed": seed,
            "code": code(compiled=args.budget == "latency"),
        }
        cells = [about | column | {"reduction": r} for column in columns for r in args.reductions]
        missing = [cell for cell in cells if key_of(cell) not in done]
        if not missing:
            continue
        fit, tested = pictures(loaded, args.images, args.pictures, seed)
        print(f"seed {seed}: surveying", file=sys.stderr, flush=True)
        found = survey(loaded.model, fit, forms=args.forms)
        for cell in missing:
            if "threads" in cell:
                plan, converted, told = by_latency(loaded, found, fit, tested, cell, args.compiled)
            else:
                plan = plan_from(found, {"macs": 1 / cell["reduction"]}, totals_of(found, fit[0]))
                converted, told = convert(loaded.model, plan, fit), {}
            if "minutes" in cell:
                name = "-".join(["hed", *cell["forms"], *(str(cell[n]) for n in ("reduction", "minutes", "pictures"))])
                train, _ = pictures(loaded, args.images, TRAINED, seed)
                converted = recovered(args, name, cell, converted, loaded.model, train, minutes=cell["minutes"])
                told = {"precision": args.precision, "training_threads": torch.get_num_threads()}
            agreed = agreement(converted, loaded.model, tested)
            whole = cell | {"reached": plan.macs[0] / plan.macs[1], **told, **agreed.to_dict()}
            records.append(args.results, [records.here("hed.f1", agreed.f1, about=whole)])
            print(f"seed {seed}, {cell['reduction']:g}x: F1 {agreed.f1:.4f} {told}", file=sys.stderr, flush=True)


def by_latency(
    loaded: LoadedModel,
    found: Survey,
    fit: Sequence[Tensor],
    tested: Sequence[Tensor],
    cell: dict[str, Any],
    compiled: bool,
) -> tuple[Plan, nn.Module, dict[str, Any]]:
    """Planned for the time of the first tested picture: the plan, the converted network, and what it takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(cell["threads"])
    try:
        x = tested[0]
        plan, _ = plan_within(loaded.model, found, x, fit, [], {"latency": 1 / cell["reduction"]})
        assert plan.latency is not None
        assert plan.latency.measured is not None
        converted = convert(loaded.model, plan, fit)
        told: dict[str, Any] = {"predicted": 1 / plan.latency.predicted, "planned": 1 / plan.latency.measured}
        for dtype in ("float32", "bfloat16"):
            told |= timed(loaded.model, converted, tested, dtype, compiled)
    finally:
        torch.set_num_threads(threads)
    told |= {"compiled": compiled, "layers": {n: [c.form, c.rank] for n, c in plan.converted.items()}}
    return plan, converted, told


def timed(
    dense: nn.Module, converted: nn.Module, tested: Sequence[Tensor], dtype: str, compiled: bool
) -> dict[str, Any]:
    """How many times faster the fused network is than the dense one in eager PyTorch and in its best runtime."""
    kind, x = getattr(torch, dtype), tested[0]
    laid = x.to(kind).contiguous(memory_format=torch.channels_last)
    fused = fuse(converted, x, dtype=kind)
    others = runtimes(dense, x, kind, compiled)
    if others.left_out:
        raise SepwiseError("; ".join(f"{name}: {why}" for name, why in others.left_out.items()))
    timings = interleaved({**others.calls, "fused": lambda: fused(laid)}, ROUNDS)
    ours = timings.pop("fused")
    eager = {form: timing for form, timing in timings.items() if form.startswith(("eager", "folded"))}
    best = fastest(timings)
    told = {"faster": ratio(timings[best], ours).median, "faster_than_eager": ratio(eager[fastest(eager)], ours).median}
    told |= {"quartiles": list(ratio(timings[best], ours).quartiles), "best": best}
    told |= {"dense_ms": {form: min(t.rounds_ms) for form, t in timings.items()}, "fused_ms": min(ours.rounds_ms)}
    if dtype != "float32":
        told["f1"] = agreement(lambda picture: fused(picture.to(kind)).float(), dense, tested).f1
        return {dtype: told}
    return told


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
def agreement(converted: Callable[[Tensor], Tensor], dense: nn.Module, tested: Sequence[Tensor]) -> Agreement:
    found = Agreement("maps")
    for x in tested:
        found.update(converted(x), dense(x))
    return found


def key_of(about: dict[str, Any]) -> tuple[Any, ...]:
    names = ("forms", "pictures", "seed", "reduction", "code", "budget", "threads", "minutes")
    return tuple(map(str, (about.get(name) for name in names)))


def read(path: Path) -> Iterator[records.Record]:
    return arena.read(path, "hed.f1")


def table(path: Path) -> str:
    """Mean and standard error over seeds, of the last code that each row was measured with."""
    lines = [
        "| forms | pictures | fewer MACs | minutes of recovery | F1 | mean absolute difference | seeds |",
        "|---|---|---|---|---|---|---|",
    ]

    def row_of(about: dict[str, Any]) -> tuple[Any, ...]:
        return "+".join(about["forms"]), about["pictures"], about["reduction"], about.get("minutes", 0)

    counted = (r for r in read(path) if "threads" not in r.about)
    for (forms, count, _, minutes), found in rows(counted, row_of):
        off, reached = (np.mean([r.about[n] for r in found]) for n in ("mean_absolute_difference", "reached"))
        f1 = with_error([r.value for r in found], 4)
        lines.append(f"| {forms} | {count} | {reached:.2f}× | {minutes:g} | {f1} | {off:.4f} | {len(found)} |")
    timed_rows = rows(
        (r for r in read(path) if "threads" in r.about),
        lambda a: ("+".join(a["forms"]), a["pictures"], a["threads"], a["reduction"]),
    )
    if timed_rows:
        lines += [
            "",
            "| planned for latency | threads | faster than eager | than its best runtime | bfloat16 | fewer MACs | F1 "
            "| F1, bfloat16 | seeds |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
    for (forms, _, threads, _), found in timed_rows:
        told = [np.mean([r.about[n] for r in found]) for n in ("faster_than_eager", "faster", "reached")]
        half = [np.mean([r.about["bfloat16"][n] for r in found]) for n in ("faster", "f1")]
        best = "/".join(sorted({r.about["best"] for r in found}))
        f1 = with_error([r.value for r in found], 4)
        row = (
            f"{told[0]:.2f}×",
            f"{told[1]:.2f}× ({best})",
            f"{half[0]:.2f}×",
            f"{told[2]:.2f}×",
            f1,
            f"{half[1]:.4f}",
        )
        lines.append(" | ".join((f"| {forms}", str(threads), *row, f"{len(found)} |")))
    return "\n".join(lines)
