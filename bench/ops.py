"""`./run bench ops`: the public op `separable_conv2d` against the best peers, with output checked first."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from bench import activations, answer, frame, history, roofline, table, workload
from bench.history import OPS
from bench.measuring import Workers, build_and_check, time_steadily
from bench.process import ROOT
from bench.worker import save_tensors
from bench.workload import Workload
from sepwise import records

RESULTS = ROOT / "bench" / "results" / "ops.jsonl"
ROOFLINE = "ops.roofline"


@dataclass(frozen=True)
class Cell:
    """One workload in one dtype; every number of threads that is still to be timed."""

    shapes: str
    workload: Workload
    dtype: str
    classes: tuple[str, ...]
    threads: tuple[int, ...]


def main(arguments: Sequence[str]) -> int:
    return frame.main("ops", _parser().parse_args(arguments), run, show)


def _parser() -> argparse.ArgumentParser:
    parser = frame.parser("ops", __doc__, list(answer.BOUND), RESULTS)
    add = parser.add_argument
    add("--shapes", nargs="+", default=[], metavar="FILE[/ROW]", help="files of bench/shapes, or rows; default: all")
    add("--impl", nargs="+", default=["auto", "cpu"], metavar="NAME", help="implementations of ours; default auto cpu")
    return parser


def show(args: argparse.Namespace) -> frame.Shown:
    chosen = {(shapes, w.name) for shapes, w in workload.select(args.shapes)}

    def named(about: Mapping[str, Any]) -> bool:
        return (about["shapes"], about["workload"]["name"]) in chosen and about["threads"] in args.threads

    cells = list(history.asked(history.newest(OPS, history.read(args.results, OPS)), args.classes, named))
    wrong = any(row.wrong for row in table.rows(cells))
    return frame.Shown(json.dumps(table.to_dict(cells)) if args.json else table.render(cells, args.markdown), wrong)


def run(args: argparse.Namespace) -> None:
    """Time what is not finished, and write each cell as soon as it is."""
    same = history.same(OPS)
    cells = _unfinished(args, same)
    if not cells:
        print("bench ops: everything asked for is finished; --again times it anew", file=sys.stderr)
        return
    from tqdm import tqdm

    if not args.realtime:
        frame.warn_if_busy("ops")
    total = sum(len(cell.threads) for cell in cells)
    with ExitStack() as stack:
        workers = {n: Workers(n, args.realtime) for n in args.threads}
        for each in workers.values():
            stack.callback(each.close)
        machine = {n: w.measure("eager", "roofline", threads=n)["roofline"] for n, w in workers.items()}
        records.append(
            args.results, [records.here(ROOFLINE, machine[n], about={**same, "threads": n}) for n in args.threads]
        )
        bar = stack.enter_context(tqdm(total=total, unit="row", file=sys.stderr, dynamic_ncols=True))
        for cell in cells:
            bar.set_description(f"{cell.shapes}/{cell.workload.name} {cell.dtype}")
            for record in _timed(cell, workers, machine, args):
                about = {**same, **record.about}
                records.append(args.results, [replace(record, about=about)])
                bar.update()


def _timed(
    cell: Cell, workers: dict[int, Workers], machine: dict[int, dict[str, Any]], args: argparse.Namespace
) -> Iterator[records.Record]:
    """The records of a cell, one for each number of threads."""
    workload = cell.workload
    with tempfile.TemporaryDirectory() as folder:
        tensors = answer.draw(workload, cell.dtype, activations.load(workload))
        save_tensors(tensors, Path(folder))
        solved = answer.solve(workload, tensors)
        place = {"workload": workload.to_dict(), "dtype": cell.dtype}
        asked = {"classes": list(cell.classes), "implementations": args.impl}
        for threads in cell.threads:
            job = {"kind": "pair", **place, **asked}
            entries = build_and_check(workers[threads], Path(folder), job, solved, answer.BOUND)
            quality = time_steadily(workers[threads], entries, args.rounds)
            floors = {a: roofline.floor_us(workload, cell.dtype, a, machine[threads]) for a in cell.classes}
            yield history.to_record(
                OPS,
                entries,
                args.rounds,
                shapes=cell.shapes,
                threads=threads,
                floor=floors,
                realtime=args.realtime,
                date=date.today().isoformat(),
                **place,
                **asked,
                **quality,
            )


def _unfinished(args: argparse.Namespace, same: dict[str, Any]) -> list[Cell]:
    finished = history.finished(args.results, OPS, args.again)

    def done(shapes: str, w: Workload, dtype: str, threads: int, classes: Sequence[str]) -> bool:
        wanted = {**same, "shapes": shapes, "workload": w.to_dict(), "dtype": dtype, "threads": threads}
        old = finished.get(history.key(OPS, wanted, records.machine()), [])
        asked = {"classes": classes, "implementations": args.impl}
        return any(history.covers(record, args.rounds, **asked) for record in old)

    cells = []
    for shapes, w in workload.select(args.shapes):
        for dtype in ("float32", "bfloat16"):
            classes = tuple(c for c in args.classes if answer.DTYPE[c] == dtype)
            threads = tuple(n for n in args.threads if classes and not done(shapes, w, dtype, n, classes))
            if threads:
                cells.append(Cell(shapes, w, dtype, classes, threads))
    return cells
