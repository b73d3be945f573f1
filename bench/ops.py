"""`./run bench ops`: the public op `separable_conv2d` against the best peers, with output checked first."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from bench import activations, answer, history, quiet, roofline, table, workload
from bench.measuring import Workers, build_and_check, time_steadily
from bench.process import ROOT
from bench.workload import Workload
from sepwise import records
from sepwise.errors import SepwiseError

RESULTS = ROOT / "bench" / "results" / "ops.jsonl"
ROOFLINE = "ops.roofline"
BUSY = 0.1  # of a core
THREADS = [1, 2][: len(os.sched_getaffinity(0))]


@dataclass(frozen=True)
class Cell:
    """One workload in one dtype; every number of threads that is still to be timed."""

    shapes: str
    workload: Workload
    dtype: str
    classes: tuple[str, ...]
    threads: tuple[int, ...]


def main(arguments: Sequence[str]) -> int:
    args = _parser().parse_args(arguments)
    try:
        if not args.table:
            run(args)
        chosen = {(shapes, w.name) for shapes, w in workload.select(args.shapes)}
        cells = list(_asked(history.newest(history.read(args.results)), chosen, args))
    except SepwiseError as error:
        print(f"bench ops: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"\nbench ops: stopped; what was finished is in {args.results} and will not be timed again", file=sys.stderr
        )
        return 130
    print(json.dumps(table.to_dict(cells)) if args.json else table.render(cells, args.markdown))
    return 1 if any(row.wrong for row in table.rows(cells)) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run bench ops", description=__doc__)
    add = parser.add_argument
    add("--shapes", nargs="+", default=[], metavar="FILE[/ROW]", help="files of bench/shapes, or rows; default: all")
    add("--classes", nargs="+", choices=answer.BOUND, default=list(answer.BOUND))
    add("--threads", nargs="+", type=int, default=THREADS, metavar="N", help=f"default {' '.join(map(str, THREADS))}")
    add("--rounds", type=int, default=9, metavar="N", help="blocks of each candidate; default 9")
    add("--impl", nargs="+", default=["auto", "cpu"], metavar="NAME", help="implementations of ours; default auto cpu")
    add("--results", type=Path, default=RESULTS, metavar="FILE", help="records to add to; default %(default)s")
    add("--realtime", action="store_true", help="time with real-time priority, where the machine is not quiet")
    add("--again", action="store_true", help="time anew what is finished for this code and machine")
    add("--table", action="store_true", help="time nothing, print what the records say")
    add("--markdown", action="store_true", help="print Markdown tables")
    add("--json", action="store_true", help="print rows and summaries as JSON")
    return parser


def _asked(
    cells: Iterable[records.Record], chosen: set[tuple[str, str]], args: argparse.Namespace
) -> Iterator[records.Record]:
    """Of cells those that the arguments name, with the classes that they name."""
    for cell in cells:
        about = cell.about
        classes = [accuracy for accuracy in about["classes"] if accuracy in args.classes]
        named = (about["shapes"], about["workload"]["name"]) in chosen and about["threads"] in args.threads
        if named and classes:
            yield replace(cell, about={**about, "classes": classes})


def run(args: argparse.Namespace) -> None:
    """Time what is not finished, and write each cell as soon as it is."""
    if args.rounds < 1 or min(args.threads) < 1:
        raise SepwiseError(f"--rounds {args.rounds} --threads {args.threads}: expected 1 or more of each")
    if args.realtime:
        with quiet.realtime():
            pass  # refused here rather than in each process
    if not args.results.parent.is_dir():
        raise SepwiseError(f"--results {args.results}: the folder {args.results.parent} does not exist; make it first")
    same = {
        "code": history.code_fingerprint(),
        "versions": history.versions(),
        "isa": os.environ.get("SEPWISE_ISA", ""),
        "instructions": history.instructions(),
    }
    cells = _unfinished(args, same)
    if not cells:
        print("bench ops: everything asked for is finished; --again times it anew", file=sys.stderr)
        return
    from tqdm import tqdm

    if not args.realtime:
        _warn_if_busy()
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
            tensors = answer.draw(cell.workload, cell.dtype, activations.load(cell.workload))
            solved = answer.solve(cell.workload, tensors)
            for threads in cell.threads:
                w, dtype, classes = cell.workload, cell.dtype, cell.classes
                entries = build_and_check(workers[threads], w, tensors, solved, dtype, classes, args.impl)
                quality = time_steadily(workers[threads], entries, args.rounds)
                about: dict[str, Any] = {
                    **same,
                    **quality,
                    "shapes": cell.shapes,
                    "classes": list(classes),
                    "implementations": args.impl,
                    "realtime": args.realtime,
                    "floor": {a: roofline.floor_us(w, dtype, a, machine[threads]) for a in classes},
                    "date": date.today().isoformat(),
                }
                records.append(args.results, [history.to_record(entries, w, dtype, threads, args.rounds, **about)])
                bar.update()


def _warn_if_busy() -> None:
    before = quiet.Usage.now([])
    time.sleep(1.0)
    share = quiet.Usage.now([]).strangers_since(before)
    if share > BUSY:
        print(
            f"bench ops: other programs use {100 * share:.0f} % of a core; rows may be noisy, --realtime may help",
            file=sys.stderr,
        )


def _unfinished(args: argparse.Namespace, same: dict[str, Any]) -> list[Cell]:
    finished: dict[str, list[records.Record]] = {}
    for old in [] if args.again else history.read(args.results):
        finished.setdefault(history.key(old.about, old.machine), []).append(old)

    def done(shapes: str, w: Workload, dtype: str, threads: int, classes: Sequence[str]) -> bool:
        wanted = {**same, "shapes": shapes, "workload": w.to_dict(), "dtype": dtype, "threads": threads}
        old = finished.get(history.key(wanted, records.machine()), [])
        return any(history.covers(record, classes, args.impl, args.rounds) for record in old)

    cells = []
    for shapes, w in workload.select(args.shapes):
        for dtype in ("float32", "bfloat16"):
            classes = tuple(c for c in args.classes if answer.DTYPE[c] == dtype)
            threads = tuple(n for n in args.threads if classes and not done(shapes, w, dtype, n, classes))
            if threads:
                cells.append(Cell(shapes, w, dtype, classes, threads))
    return cells
