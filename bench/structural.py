"""`./run bench structural`: networks of timm at random weights planned, converted and exported: what that takes.

Each network has a process of its own: seconds of plan and conversion, and the largest resident memory of the process up
to then (activations in mapped files included), beside what it was before they began: PyTorch, network and pictures.
Then the network is converted in every form at full rank, without pictures, and must answer as the dense one does, to
1e-4 of the largest output in float32; the record holds by how much it was off, and how far off it is with one middle
channel of one layer taken away. Finished cells of the same code are not done again.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import arena
from bench.arena import ROOT, code, in_own_process, run
from bench.prepared import settled
from sepwise import records
from sepwise.conversion import Choice, Plan, convert, plan_from, survey, totals_of
from sepwise.errors import SepwiseError
from sepwise.factor import FORMS
from sepwise.graph import export
from sepwise.graph.network import trace
from sepwise.graph.sameness import BUDGETS, difference
from sepwise.measure import cost
from sepwise.nn import FactoredConv
from sepwise.nn.dense import shape_of_dense
from sepwise.ops import keep_freed_memory
from sepwise.sources.batches import batches
from sepwise.sources.models import LoadedModel, load_model

NETWORKS = ("resnet18", "resnet50", "regnety_002", "densenet121", "vgg16")
SIZE, BATCH, SETTLED, SHIFTS = (224, 224), 16, 32, (-0.5, 0.5)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "bench structural", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), metavar="NAME", help="of timm")
    parser.add_argument("--images", help="folder of pictures or parquet tables; without it they are noise")
    parser.add_argument("--pictures", type=int, default=256, help="to plan and fit on; default 256")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=sorted(FORMS), metavar="FORM")
    parser.add_argument("--macs", type=float, default=0.5, help="budget, a fraction; default 0.5")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results" / "structural.jsonl")
    return run(parser, arguments, [], measure, table)


def measure(args: argparse.Namespace) -> None:
    done = {key_of(r.about) for r in read(args.results)}
    for network in args.networks:
        asked = {
            "network": network,
            "images": "noise" if args.images is None else Path(args.images).name,
            "pictures": args.pictures,
            "forms": sorted(args.forms),
            "macs": args.macs,
            "threads": args.threads,
            "code": code(),
            "seed": 0,
        }
        if key_of(asked) in done:
            continue
        print(f"{network}: planning, converting, exporting", file=sys.stderr, flush=True)
        try:
            found = in_own_process(measured, asked, args.images)
        except SepwiseError as error:
            raise SepwiseError(f"{network}: its process ended with {error}") from None
        records.append(args.results, [records.here("structural.seconds", found["seconds"], unit="s", about=found)])


def measured(asked: dict[str, Any], images: str | None) -> dict[str, Any]:
    """Everything about one network, measured in this process."""
    torch.set_num_threads(asked["threads"])
    keep_freed_memory()  # as `sepwise convert` does
    loaded = load_model(f"timm:{asked['network']}")
    fit = pictures(loaded, images, asked["pictures"])
    model = settled(loaded.model, torch.cat(fit)[:SETTLED].split(BATCH), SHIFTS)
    before, started = peak_gib(), time.perf_counter()
    found = survey(model, fit, forms=asked["forms"])
    plan = plan_from(found, {"macs": asked["macs"]}, totals_of(found, fit[0]))
    planned = time.perf_counter()
    converted = convert(model, plan, fit)
    ended, peak = time.perf_counter(), peak_gib()
    del found
    x = fit[0][:4]
    counted = cost(converted, x[:1]).macs
    if counted != plan.macs[1]:
        raise SepwiseError(f"the plan says {plan.macs[1]} MACs, the converted network takes {counted}")
    return asked | {
        "seconds": ended - started,
        "seconds_plan": planned - started,
        "seconds_convert": ended - planned,
        "gib_before": before,
        "gib_peak": peak,
        "reached": plan.macs[0] / plan.macs[1],
        "chosen": Counter(choice.form for choice in plan.layers.values()),
        "exported": program_differs(converted, x),
        "full_rank": {form: at_full_rank(model, form, x) for form in asked["forms"]},
        "tolerance": BUDGETS[torch.float32],
    }


def pictures(loaded: LoadedModel, images: str | None, count: int) -> list[Tensor]:
    if images is not None:
        return batches(images, count, SIZE, loaded.mean, loaded.std, BATCH).tensors
    return list(torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(0)).split(BATCH))


@torch.no_grad()
def program_differs(converted: nn.Module, x: Tensor) -> float:
    """Largest difference of the exported program, relative to the largest output."""
    return difference(export(converted, x).module()(x), converted(x))[0]


@torch.no_grad()
def at_full_rank(model: nn.Module, form: str, x: Tensor) -> dict[str, Any]:
    """How far the network is from itself with all layers in one form at full rank, and with a channel less."""
    network = trace(model, x)
    shapes = {site.name: shape_of_dense(network.conv(site)) for site in network.sites}
    full = {n: FORMS[form].full_rank(conv) for n, conv in shapes.items() if FORMS[form].why_not(conv) is None}
    plan = Plan({n: Choice(form, rank, "", 0, 0, 0, 0) for n, rank in full.items()})
    exact, wanted = convert(model, plan, example=x), model(x)
    gap, budget = difference(exact(x), wanted)
    layers = [m for m in exact.modules() if isinstance(m, FactoredConv)]
    layers[len(layers) // 2].weights[0][0] = 0
    fault = difference(exact(x), wanted)[0]
    if not gap <= budget < fault:
        raise SepwiseError(
            f"{form} at full rank is off by {gap:.1e}, with a channel less by {fault:.1e}: expected at most "
            f"{budget:.0e} and more than that"
        )
    return {"layers": len(full), "difference": gap, "fault": fault}


def peak_gib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def key_of(about: dict[str, Any]) -> tuple[Any, ...]:
    names = ("network", "images", "pictures", "forms", "macs", "threads", "code")
    return tuple(map(str, (about[name] for name in names)))


def read(path: Path) -> Iterator[records.Record]:
    return arena.read(path, "structural.seconds")


def table(path: Path) -> str:
    """The newest record of each network, number of pictures and threads."""
    newest = {tuple(r.about[n] for n in ("network", "pictures", "threads", "macs")): r.about for r in read(path)}
    lines = [
        "| network | pictures | fewer MACs | layers by form | seconds | GiB, of it before | exported | full rank "
        "| with a fault |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (network, count, threads, _), a in newest.items():
        chosen = ", ".join(f"{n} {form}" for form, n in sorted(a["chosen"].items(), key=lambda item: -item[1]))
        off = max(f["difference"] for f in a["full_rank"].values())
        fault = min(f["fault"] for f in a["full_rank"].values())
        lines.append(
            f"| {network} | {count} {a['images']} | {a['reached']:.2f}× | {chosen} | {a['seconds']:.0f} on {threads} "
            f"threads | {a['gib_peak']:.1f}, {a['gib_before']:.1f} | {a['exported']:.0e} | {off:.0e} | {fault:.0e} |"
        )
    return "\n".join(lines)
