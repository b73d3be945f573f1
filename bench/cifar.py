"""`./run bench cifar`: ResNets for CIFAR-10 converted, and recovered, against their own dense baselines.

A baseline is the given network, trained three epochs further on these pictures (SGD, momentum 0.9, cosine from 0.02,
crops and mirrors), the last epoch taken; one for each seed. Without --weights the given network is first trained here,
25 epochs from random weights (cosine from 0.05, weight decay 5e-4). A baseline is converted with training pictures
whose labels are not looked at, drawn by the seed, and both are measured on all test pictures: points of accuracy lost,
mean and standard error over seeds. `--epochs 0 5` measures each conversion as it is and after five epochs of recovery
on all training pictures, without labels; the state returned is chosen on training pictures held out. Baselines are
kept, what was stopped goes on, finished cells of the same code are not done again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import arena
from bench.arena import ROOT, code, recovered, rows, run, with_error
from sepwise import records, zoo
from sepwise.conversion import convert, plan_from, survey, totals_of
from sepwise.factor import FORMS
from sepwise.files import whole_file
from sepwise.lab.data import cifar10
from sepwise.ops import keep_freed_memory
from sepwise.sources.weights import read_weights, save_weights

EPOCHS, RATE = 3, 0.02
FIRST_EPOCHS, FIRST_RATE = 25, 0.05
BATCH, PADDED = 128, 4
RESNETS = [f"resnet{depth}" for depth in (20, 32, 44, 56, 110)]
NETWORKS = [name for name in zoo.NETWORKS if name in RESNETS or "_cifar" in name]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("bench cifar", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder with train.parquet and test.parquet; needed to measure")
    parser.add_argument("--weights", type=Path, help="of the network, trained on CIFAR-10 (safetensors); none: trained")
    parser.add_argument("--network", default="resnet20", choices=NETWORKS)
    parser.add_argument(
        "--train-precision", default="32-true", help="of baselines, such as bf16-mixed; default 32-true"
    )
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=sorted(FORMS), metavar="FORM")
    parser.add_argument("--reductions", nargs="+", type=float, default=[2.2, 3.3, 6.3], metavar="TIMES")
    parser.add_argument("--fit", type=int, default=512, help="training pictures to fit on; default 512")
    parser.add_argument("--epochs", nargs="+", type=int, default=[0], metavar="N", help="of recovery; default 0: none")
    parser.add_argument("--precision", default="bf16-mixed", help="of recovery; default bf16-mixed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results" / "cifar.jsonl")
    parser.add_argument("--kept", type=Path, default=ROOT / ".cache", help="folder for baselines and recoveries begun")
    return run(parser, arguments, ["pictures"], measure, table)


def measure(args: argparse.Namespace) -> None:
    keep_freed_memory()
    train, test = ((split.images, split.labels) for split in cifar10(str(args.pictures)))
    done = {key_of(r.about) for r in read(args.results)}
    for seed in args.seeds:
        about = {"network": args.network, "forms": sorted(args.forms), "fit": args.fit, "seed": seed, "code": code()}
        cells = [about | {"reduction": r, "epochs": e} for r in args.reductions for e in args.epochs]
        missing = [cell for cell in cells if key_of(cell) not in done]
        if not missing:
            continue
        dense = baseline(args, seed, train)
        scores = scores_of(dense, test[0])
        chosen = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(seed))[: args.fit]
        fit = list(prepared(train[0][chosen]).split(BATCH))
        found = survey(dense, fit, forms=args.forms)
        for reduction in dict.fromkeys(cell["reduction"] for cell in missing):
            plan = plan_from(found, {"macs": 1 / reduction}, totals_of(found, fit[0]))
            converted = convert(dense, plan, fit)
            for cell in (cell for cell in missing if cell["reduction"] == reduction):
                network = trained(args, cell, converted, dense, train[0]) if cell["epochs"] else converted
                answered = scores_of(network, test[0])
                numbers = {
                    "dense": accuracy(scores, test[1]),
                    "converted": accuracy(answered, test[1]),
                    "agreement": 100 * float((answered.argmax(1) == scores.argmax(1)).double().mean()),
                    "reached": plan.macs[0] / plan.macs[1],
                    "chosen": sorted(c.form for c in plan.layers.values()),
                }
                lost = numbers["dense"] - numbers["converted"]
                whole = cell | numbers | ({"precision": args.precision} if cell["epochs"] else {})
                records.append(args.results, [records.here("cifar.points_lost", lost, unit="points", about=whole)])
                said = f"seed {seed}, {reduction:g}x, {cell['epochs']} epochs: {lost:.2f} points lost"
                print(said, file=sys.stderr, flush=True)


def trained(
    args: argparse.Namespace, cell: dict[str, Any], converted: nn.Module, dense: nn.Module, pictures: Tensor
) -> nn.Module:
    """The converted network, after recovery on all training pictures."""
    name = "-".join(str(cell[n]) for n in ("network", "reduction", "epochs", "fit"))
    batches = list(prepared(pictures).split(BATCH))
    return recovered(args, name, cell, converted, dense, batches, epochs=cell["epochs"])


def prepared(pictures: Tensor) -> Tensor:
    mean, std = (torch.tensor(zoo.CifarResNet.picture[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (pictures.float() / 255 - mean) / std


def baseline(args: argparse.Namespace, seed: int, train: tuple[Tensor, Tensor]) -> nn.Module:
    """The network trained further, from its file if there is one."""
    kept = args.kept / "baselines" / f"{args.network}-{seed}.safetensors"
    if kept.exists():
        return _loaded(args.network, kept)
    given = args.weights or args.kept / "baselines" / f"{args.network}-first.safetensors"
    if not given.exists():
        torch.manual_seed(0)
        network = getattr(zoo, args.network)()
        _train(network, train, FIRST_EPOCHS, FIRST_RATE, 5e-4, 0, given, args.train_precision)
    return _train(_loaded(args.network, given), train, EPOCHS, RATE, 1e-4, seed, kept, args.train_precision)


def _loaded(name: str, path: Path) -> nn.Module:
    network = getattr(zoo, name)()
    network.load_state_dict(read_weights(path))
    return network.eval()


def _train(
    network: nn.Module,
    train: tuple[Tensor, Tensor],
    epochs: int,
    rate: float,
    decay: float,
    seed: int,
    kept: Path,
    precision: str,
) -> nn.Module:
    """The network after the last epoch, written to `kept`; training that was stopped goes on after its last epoch."""
    begun = kept.with_suffix(".pt")
    random = torch.Generator().manual_seed(seed)
    search = torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=decay, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(search, epochs * (len(train[0]) // BATCH))
    first = 0
    if begun.exists():
        state = torch.load(begun, weights_only=True)
        network.load_state_dict(state["network"])
        search.load_state_dict(state["search"])
        schedule.load_state_dict(state["schedule"])
        random.set_state(state["random"])
        first = state["epochs"]
    kept.parent.mkdir(parents=True, exist_ok=True)
    network.train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for epoch in range(first, epochs):
        order = torch.randperm(len(train[0]), generator=random)
        for batch in order[: len(order) // BATCH * BATCH].split(BATCH):
            x = prepared(augmented(train[0][batch], random)).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                scores = network(x)
            search.zero_grad()
            F.cross_entropy(scores.float(), train[1][batch]).backward()
            search.step()
            schedule.step()
        print(f"{kept.stem}: epoch {epoch + 1} of {epochs} of the baseline", file=sys.stderr, flush=True)
        state = {"network": network.state_dict(), "search": search.state_dict(), "schedule": schedule.state_dict()}
        with whole_file(begun) as aside:
            torch.save(state | {"random": random.get_state(), "epochs": epoch + 1}, aside)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    save_weights(network, kept)
    begun.unlink(missing_ok=True)
    return network.eval()


def augmented(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Each shifted by up to PADDED pixels, half of them mirrored."""
    n, _, size, _ = pictures.shape
    padded = F.pad(pictures, (PADDED,) * 4)
    rows, columns = (torch.randint(2 * PADDED + 1, (n, 1), generator=random) + torch.arange(size) for _ in range(2))
    mirrored = torch.rand(n, 1, generator=random) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def scores_of(network: nn.Module, pictures: Tensor) -> Tensor:
    return torch.cat([network(prepared(part)) for part in pictures.split(500)])


def accuracy(scores: Tensor, labels: Tensor) -> float:
    return 100 * float((scores.argmax(1) == labels).double().mean())


def key_of(about: dict[str, Any]) -> tuple[Any, ...]:
    names = ("network", "forms", "fit", "seed", "reduction", "epochs", "code")
    return tuple(str(about.get(name, 0)) for name in names)


def read(path: Path) -> Iterator[records.Record]:
    return arena.read(path, "cifar.points_lost")


def table(path: Path) -> str:
    """Mean and standard error over seeds, of the last code that each row was measured with."""
    lines = [
        "| network | forms | fewer MACs | epochs of recovery | dense | points lost | same class | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def row_of(about: dict[str, Any]) -> tuple[Any, ...]:
        return about["network"], "+".join(about["forms"]), about["reduction"], about.get("epochs", 0)

    for (network, forms, _, epochs), found in rows(read(path), row_of):
        dense, same, reached = (np.mean([r.about[n] for r in found]) for n in ("dense", "agreement", "reached"))
        lost = with_error([r.value for r in found], 2)
        start = f"| {network} | {forms} | {reached:.2f}× | {epochs}"
        lines.append(f"{start} | {dense:.2f} % | {lost} | {same:.1f} % | {len(found)} |")
    return "\n".join(lines)
