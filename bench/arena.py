"""What the arenas of the converter share: the frame of a command, which code a record belongs to, means over seeds."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

import sepwise
from bench.history import BUILT, code_fingerprint
from bench.process import ROOT
from sepwise import records
from sepwise.conversion import recover
from sepwise.errors import SepwiseError


def run(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str],
    needed: Sequence[str],
    measure: Callable[[argparse.Namespace], None],
    table: Callable[[Path], str],
) -> int:
    """Measure, unless --table is given, and print the table; `needed` are the options that measuring takes."""
    parser.add_argument("--table", action="store_true", help="measure nothing, print what the records say")
    args = parser.parse_args(arguments)
    if not args.table and any(getattr(args, name) is None for name in needed):
        parser.error(f"give {' and '.join(f'--{name}' for name in needed)}, or --table")
    try:
        if not args.table:
            measure(args)
        print(table(args.results))
    except SepwiseError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


@cache
def code(compiled: bool = False) -> str:
    """What the results depend on: the rooms that convert and run; where kernels decide, the compiled library, too."""
    return code_fingerprint(BUILT, packages=sepwise.__path__ if compiled else ())


def in_own_process(
    measured: Callable[..., dict[str, Any]], *given: Any, seconds: float | None = None
) -> dict[str, Any]:
    """What a function of a module answers in a fresh process. Raises SepwiseError that says how that ended instead.

    given      Python's own values: they go there as text
    seconds    that it may take
    """
    where, name = measured.__module__, measured.__name__
    source = f"import json; from {where} import {name}; print(json.dumps({name}(*{given!r})))"
    try:
        done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise SepwiseError(f"it took more than {seconds} seconds") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise SepwiseError(f"{how}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def recovered(
    args: argparse.Namespace,
    name: str,
    cell: dict[str, Any],
    converted: nn.Module,
    dense: nn.Module,
    batches: Sequence[Tensor],
    **length: float,
) -> nn.Module:
    """The converted network of a cell, trained for so many `epochs` or `minutes`; what was stopped goes on.

    name    tells this cell from all others of its arena
    """
    checkpoint = args.kept / "recoveries" / f"{name}-{cell['seed']}-{cell['code']}.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    network = recover(
        converted,
        dense,
        batches,
        **length,  # type: ignore[arg-type]
        precision=args.precision,
        seed=cell["seed"],
        checkpoint=checkpoint,
        measured=lambda done, loss: print(f"  {100 * done:.0f} %: loss {loss:.5f}", file=sys.stderr, flush=True),
    )
    checkpoint.unlink()
    return network


def read(path: Path, what: str) -> Iterator[records.Record]:
    """The records of one quantity; none where there is no file yet."""
    return (r for r in (records.read(path) if path.exists() else ()) if r.what == what)


def rows(
    found: Iterator[records.Record], row_of: Callable[[dict[str, Any]], tuple]
) -> list[tuple[tuple, list[records.Record]]]:
    """Each row of a table, in order, with one record for each seed: the newest of the code last measured with."""
    by_code: dict[tuple, dict[str, dict[int, records.Record]]] = {}
    for record in found:
        codes = by_code.setdefault(row_of(record.about), {})
        name = record.about["code"]
        codes[name] = codes.pop(name, {}) | {record.about["seed"]: record}
    return [(row, list(list(codes.values())[-1].values())) for row, codes in sorted(by_code.items())]


def with_error(values: Sequence[float], digits: int) -> str:
    """The mean, with its standard error where there are several."""
    numbers = np.array(values)
    error = f" ± {numbers.std(ddof=1) / len(numbers) ** 0.5:.{digits}f}" if len(numbers) > 1 else ""
    return f"{numbers.mean():.{digits}f}{error}"
