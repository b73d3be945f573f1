"""`sepwise convert`: a trained dense network and a folder of pictures in, a separable network and a report out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BudgetError, PictureError, PlanError, ShapeError
from .outcome import Outcome
from .results import check_results

if TYPE_CHECKING:
    from ..sources.models import LoadedModel

HELP = "convert a trained dense network into a separable one under a budget, fitted on unlabelled pictures"

NOT_OPTIONS = ("resume", "overwrite", "onnx", "json", "debug", "run")  # a conversion is the same with or without


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="timm:NAME, zoo:NAME, package.module:factory or file.pt2")
    parser.add_argument("--weights", metavar="FILE", help="its trained weights, such as net.safetensors")
    parser.add_argument("--images", metavar="DIR_OR_PARQUET", help="unlabelled pictures to fit on")
    parser.add_argument(
        "--data-free",
        action="store_true",
        help="fit on noise made to look, to the batch normalizations, like the pictures they were trained on; "
        "--images, if given, are for measuring only",
    )
    parser.add_argument(
        "--budget",
        metavar="UNIT=FRACTION",
        action="append",
        help="fractions of the dense network: macs=0.25, parameters=0.3, weight_bytes=0.3, latency=0.4 (of its time in "
        "its fastest stock form, on this machine); or agreement=0.95: the cheapest that keeps it; several: all hold",
    )
    parser.add_argument(
        "--minimise",
        metavar="UNIT",
        default="macs",
        help="what is cheapest, with --budget agreement: macs (default), parameters, weight_bytes or latency",
    )
    parser.add_argument("--plan", metavar="FILE.json", help="carry out this plan instead of making one")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the network, its plan and the report")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it is there")
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx (pip install 'sepwise[onnx]')")
    parser.add_argument("--forms", metavar="A,B", help="forms to choose from (default: all)")
    parser.add_argument("--keep-batch-norm", action="store_true", help="do not fold batch normalization away")
    parser.add_argument(
        "--size", metavar="HxW", help="size of the pictures in pixels, or one number (default: its own)"
    )
    parser.add_argument("--mean", metavar="R,G,B", help="mean to subtract, for values in 0..1 (default: its own)")
    parser.add_argument("--std", metavar="R,G,B", help="deviation to divide by, for values in 0..1 (default: its own)")
    parser.add_argument("--limit", metavar="N", type=int, help="pictures to fit on (default: by their size, 16 to 512)")
    parser.add_argument(
        "--held-out", metavar="N", type=int, help="pictures kept for measuring (default: by their size)"
    )
    parser.add_argument(
        "--iterations", metavar="N", type=int, default=8, help="search steps for each layer (default: 8)"
    )
    parser.add_argument(
        "--recover",
        metavar="LENGTH",
        help="then train the network on the pictures, without labels, to answer as the dense one: 20min or 3epochs",
    )
    parser.add_argument(
        "--recover-limit", metavar="N", type=int, help="pictures to train on (default: all that 2 GB of memory hold)"
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="measure other ways to be so cheap beside it: without pictures, and those of TensorLy-Torch and "
        "Torch-Pruning (pip install 'sepwise[compare]')",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from a conversion with the same options that was stopped (kept in OUT.unfinished)",
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="chooses the pictures (default: 0)")
    parser.add_argument("--skip-broken", action="store_true", help="go on without pictures that cannot be read")


def run(args: argparse.Namespace) -> Outcome:
    budget = read_budget(args.budget or [])
    if not budget and not args.plan:
        raise BudgetError("give a budget, such as --budget macs=0.25, or a plan, --plan plan.json")
    if not args.images and not args.data_free:
        raise PictureError("give pictures to fit on, --images DIR, or --data-free if there are none")
    from ..conversion import Plan, check_budget
    from ..conversion.budget import UNITS
    from ..factor import FORMS
    from ..sources.models import load_model
    from .job import run as run_job
    from .pictures import pictures_for
    from .recovering import Recovery, read_length
    from .request import Job

    out = Path(args.out)
    check_results(out, args.overwrite, args.model, args.weights, args.images)
    plan = Plan.load(args.plan) if args.plan else None
    if plan is None:
        check_budget(budget)
    if args.minimise not in UNITS:
        raise BudgetError(f"--minimise {args.minimise}: expected one of {', '.join(UNITS)}")
    _check_counts(args)
    length = read_length(args.recover) if args.recover else None
    forms = tuple(FORMS) if args.forms is None else tuple(args.forms.split(","))
    unknown = [f for f in forms if f not in FORMS]
    if unknown:
        raise PlanError(f"--forms: there is no form {unknown[0]!r}; the forms are {', '.join(FORMS)}")
    loaded = prepared_as_asked(load_model(args.model, args.weights), args)
    given = pictures_for(args, loaded)
    with _told_what_is_kept(out):
        done = run_job(
            Job(
                loaded=loaded,
                fit=given.fit,
                fitted_on=given.fitted_on,
                shown=given.shown,
                shown_on=given.shown_on,
                out=out,
                overwrite=args.overwrite,
                title=args.model,
                budget=budget,
                minimise=args.minimise,
                forms=forms,
                batch_norm="keep" if args.keep_batch_norm else "fold",
                plan=plan,
                iterations=args.iterations,
                compare=args.compare,
                onnx=args.onnx,
                recovery=Recovery(*length, given.train) if length else None,
                options={name: value for name, value in vars(args).items() if name not in NOT_OPTIONS},
                resume=args.resume,
            )
        )
    skipped = given.skipped
    if skipped:
        done.data["skipped"] = skipped
        one = len(skipped) == 1
        left_out = "1 picture was left out: " if one else f"{len(skipped)} pictures were left out, the first: "
        left_out += skipped[0]
        return Outcome(done.data, f"{done.text}\n{left_out}")
    return done


@contextmanager
def _told_what_is_kept(out: Path) -> Iterator[None]:
    """Whoever is stopped half-way learns how to go on."""
    from .unfinished import folder_of

    try:
        yield
    except KeyboardInterrupt:
        if folder_of(out).exists():
            print(f"what was done so far is in {folder_of(out)}; --resume goes on from it", file=sys.stderr)
        raise
    except BudgetError as error:
        if not folder_of(out).exists():
            raise
        raise BudgetError(f"{error}; the survey is kept, so that another --budget with --resume needs none") from None


def read_budget(texts: list[str]) -> dict[str, float]:
    """["macs=0.25"] as {"macs": 0.25}. Raises BudgetError for anything else."""
    budget = {}
    for part in (p for text in texts for p in text.split(",")):
        unit, _, number = part.partition("=")
        try:
            budget[unit.strip()] = float(number)
        except ValueError:
            raise BudgetError(f"--budget {part!r}: expected UNIT=FRACTION, such as macs=0.25") from None
    return budget


def _check_counts(args: argparse.Namespace) -> None:
    for name, least in (("limit", 1), ("held_out", 1), ("iterations", 0), ("recover_limit", 2)):
        count = getattr(args, name)
        if count is not None and count < least:
            raise ShapeError(f"--{name.replace('_', '-')} {count}: expected an integer, at least {least}")


def prepared_as_asked(loaded: LoadedModel, args: argparse.Namespace) -> LoadedModel:
    """The model with --size, --mean and --std in place of its own."""
    from dataclasses import replace

    from .sizes import read_size

    changes: dict[str, object] = {}
    if args.size:
        changes |= {"size": read_size(args.size), "crop": 1.0}
    for name in ("mean", "std"):
        if getattr(args, name):
            changes[name] = _numbers(name, getattr(args, name), loaded.channels)
    return replace(loaded, **changes)  # type: ignore[arg-type]


def _numbers(name: str, text: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(t) for t in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count or not all(map(isfinite, values)) or (name == "std" and min(values) <= 0):
        raise ShapeError(f"--{name} {text!r}: expected {count} finite numbers" + (" above 0" if name == "std" else ""))
    return values
