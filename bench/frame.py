"""What the commands that time runtimes share: arguments, refusals, and the order of measuring and printing."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import quiet
from sepwise.errors import SepwiseError

BUSY = 0.1  # of a core
CORES = len(os.sched_getaffinity(0))
THREADS = [1, 2][:CORES]


@dataclass(frozen=True)
class Shown:
    """What a command prints, and whether something of ours gave a wrong answer or broke."""

    text: str
    wrong: bool


def parser(name: str, about: str | None, classes: Sequence[str], results: Path) -> argparse.ArgumentParser:
    """With the arguments that all of them take."""
    made = argparse.ArgumentParser(prog=f"./run bench {name}", description=about)
    add = made.add_argument
    add("--classes", nargs="+", choices=classes, default=list(classes))
    add("--threads", nargs="+", type=int, default=THREADS, metavar="N", help=f"default {' '.join(map(str, THREADS))}")
    add("--rounds", type=int, default=9, metavar="N", help="blocks of each candidate; default 9")
    add("--results", type=Path, default=results, metavar="FILE", help="records to add to; default %(default)s")
    add("--realtime", action="store_true", help="time with real-time priority, where the machine is not quiet")
    add("--again", action="store_true", help="measure anew what is finished for this code and machine")
    add("--table", action="store_true", help="measure nothing, print what the records say")
    add("--markdown", action="store_true", help="print Markdown tables")
    add("--json", action="store_true", help="print rows and summaries as JSON")
    return made


def main(
    name: str,
    args: argparse.Namespace,
    measure: Callable[[argparse.Namespace], None],
    show: Callable[[argparse.Namespace], Shown],
) -> int:
    """Measure, unless --table is given, and print. The exit code is 1 for what is refused, and when ours was wrong."""
    try:
        if not args.table:
            _check(args)
            measure(args)
        shown = show(args)
    except SepwiseError as error:
        print(f"bench {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"\nbench {name}: stopped; what was finished is in {args.results} and will not be timed again",
            file=sys.stderr,
        )
        return 130
    print(shown.text)
    return 1 if shown.wrong else 0


def _check(args: argparse.Namespace) -> None:
    if args.rounds < 1 or min(args.threads) < 1:
        threads = " ".join(map(str, args.threads))
        raise SepwiseError(f"--rounds {args.rounds} --threads {threads}: expected 1 or more of each")
    if args.realtime:
        with quiet.realtime():
            pass  # refused here rather than in each process
    if not args.results.parent.is_dir():
        raise SepwiseError(f"--results {args.results}: the folder {args.results.parent} does not exist; make it first")


def warn_if_busy(name: str) -> None:
    before = quiet.Usage.now([])
    time.sleep(1.0)
    share = quiet.Usage.now([]).strangers_since(before)
    if share > BUSY:
        print(
            f"bench {name}: other programs use {100 * share:.0f} % of a core; rows may be noisy, --realtime may help",
            file=sys.stderr,
        )
