"""`sepwise lab`: the claims about separable convolutions, tested again on this machine."""

from __future__ import annotations

import argparse
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__, records, report
from ..errors import SepwiseError
from ..files import whole_file
from .outcome import Outcome
from .progress import Progress

if TYPE_CHECKING:
    from ..lab import Folder, Judged, Recipe

HELP = "test the published claims about separable convolutions again: list | run RECIPE | report"

ACTIONS = ("list", "run", "report")
RESULTS = "lab-results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=ACTIONS, help="list the claims, run recipes, or write the report")
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="recipes to run, or 'all'; `list` names them")
    parser.add_argument("--scale", choices=("smoke", "small", "paper"), default="small", help="default: small")
    parser.add_argument("--seeds", type=int, metavar="N", help="trials of each arm (default: the recipe's)")
    parser.add_argument("--data", metavar="FOLDER", help="CIFAR-10: train.parquet and test.parquet; or hub: download")
    parser.add_argument(
        "--images", metavar="DIR_OR_PARQUET", help="natural pictures, for recipes about trained networks"
    )
    parser.add_argument("--weights", metavar="FOLDER", help="trained networks: resnet20.safetensors, ...")
    parser.add_argument("--benchmarks", metavar="FOLDER", help="records of ./run bench, for recipes about speed")
    parser.add_argument("--results", metavar="FOLDER", default=RESULTS, help=f"records; default: {RESULTS}")
    parser.add_argument("--workers", type=int, metavar="N", help="trials at once (default: one for each core)")
    parser.add_argument("--ray", metavar="ADDRESS", help="run the trials on a Ray cluster; local: start one here")
    parser.add_argument("--mlflow", metavar="URI", help="also write finished trials to this MLflow server")
    parser.add_argument("--out", metavar="FILE.html", default="lab-report.html", help="of `report`")


def run(args: argparse.Namespace) -> Outcome:
    for name, value in (("--seeds", args.seeds), ("--workers", args.workers)):
        if value is not None and value < 1:
            raise SepwiseError(f"{name} {value}: expected an integer >= 1")
    if args.action != "run" and args.recipes:
        raise SepwiseError(f"lab {args.action} takes no recipe; {', '.join(args.recipes)} given")
    return {"list": _list, "run": _run, "report": _report}[args.action](args)


def _list(args: argparse.Namespace) -> Outcome:
    from ..lab import Folder, judged

    found = judged(Folder(Path(args.results)), args.scale)
    return Outcome({"scale": args.scale, "claims": [each.to_dict() for each in found]}, _table(found))


def _run(args: argparse.Namespace) -> Outcome:
    from ..lab import Folder, named, names
    from ..lab.judged import of_recipe

    if not args.recipes:
        raise SepwiseError(f"name a recipe to run: {', '.join(names())}, or all")
    recipes = [named(name) for name in (names() if args.recipes == ["all"] else args.recipes)]
    folder = Folder(Path(args.results))
    left, refusals = 0, []
    for recipe in recipes:
        try:
            left += _run_one(recipe, args, folder)
        except SepwiseError as refusal:
            refusals.append(str(refusal))
    found = [each for recipe in recipes for each in of_recipe(recipe, folder, args.scale)]
    if refusals and not any(each.finding for each in found):
        raise SepwiseError("\n".join(refusals))
    data = {"scale": args.scale, "trials_left": left, "refused": refusals, "claims": [e.to_dict() for e in found]}
    notes = [f"{left} trials are being run by another process."] if left else []
    return Outcome(data, "\n".join([_table(found), *notes, *refusals]), exit_code=1 if refusals else 0)


def _run_one(recipe: Recipe, args: argparse.Namespace, folder: Folder) -> int:
    from ..lab import Inputs
    from ..lab import run as run_here

    inputs = Inputs(args.data, args.images, args.weights, args.benchmarks)
    with Progress() as bar:

        def progress(done: float, total: int) -> None:
            bar(f"trials of {recipe.name}", round(done, 1), total)

        shared = {"seeds": args.seeds, "progress": progress}
        if args.ray:
            from ..lab.on_ray import run_on_ray

            left = run_on_ray(recipe.name, args.scale, folder.path, inputs, args.ray, **shared)
        else:
            left = run_here(recipe.name, args.scale, folder.path, inputs, workers=args.workers, **shared)
    if args.mlflow:
        from ..lab.mirror import mirror

        mirror(recipe, folder, args.mlflow)
    return left


def _report(args: argparse.Namespace) -> Outcome:
    from ..lab import Folder, judged

    found = judged(Folder(Path(args.results)), args.scale)
    about = {"command": " ".join(["sepwise", *sys.argv[1:]]), "sepwise": __version__, "scale": args.scale}
    with whole_file(args.out) as aside, tempfile.TemporaryDirectory() as name:
        facts = [records.here("lab.report", about), *(records.here("lab.claim", each.to_dict()) for each in found)]
        records.append(Path(name) / "records.jsonl", facts)
        report.build(name, aside)
    data = {"scale": args.scale, "report": args.out, "claims": [each.to_dict() for each in found]}
    return Outcome(data, f"{_table(found)}\nThe page is {args.out}")


def _table(found: list[Judged]) -> str:
    """A line for each claim, and below it what was measured."""
    lines = []
    for each in found:
        verdict = each.verdict or "not run"
        lines.append(f"{each.claim.id:3} {verdict:14} {each.claim.says}")
        measured = each.finding.says if each.finding else f"sepwise lab run {each.claim.recipe}"
        lines += textwrap.wrap(measured, 110, initial_indent=" " * 19, subsequent_indent=" " * 19)
        if each.finding and each.done < each.of:
            lines.append(f"{'':19}{each.done} of {each.of} trials are finished")
        if each.damaged:
            lines.append(f"{'':19}{each.damaged} damaged lines in its records are counted as no trial")
    return "\n".join(lines)
