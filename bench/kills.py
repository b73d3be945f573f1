"""`./run bench kills`: a running recipe killed with SIGKILL at random moments, and started again after each.

Two workers run the trials of a recipe; the whole process group is killed after a random time, so often as asked, and
then left to finish. Every trial must have exactly one record, no line may be damaged, nothing may be left of unfinished
trials but their locks, and every number must be the one that a run without kills gives.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.arena import ROOT
from sepwise import records
from sepwise.errors import SepwiseError
from sepwise.lab import Folder, Inputs, named, run, trials
from sepwise.lab.data import cifar10


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("bench kills", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.parquet and test.parquet of CIFAR-10")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--recipe", default="darknet")
    parser.add_argument("--seeds", type=int, default=60, help="trials of each arm, at scale smoke; default 60")
    parser.add_argument("--least", type=float, default=4.0, help="seconds before a kill, at least; default 4")
    parser.add_argument("--most", type=float, default=20.0, help="and at most; default 20")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results" / "kills.jsonl")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        cifar10(args.data, Folder(Path(name) / "killed").unfinished)  # decoded once: kills shall fall into trials
        found = killed(args, Path(name) / "killed")
        found |= checked(args, Path(name) / "killed", Path(name) / "whole")
    records.append(args.results, [records.here("lab.kills", found["faults"], about=found)])
    print(", ".join(f"{key}: {value}" for key, value in found.items()))
    return 1 if found["faults"] else 0


def killed(args: argparse.Namespace, folder: Path) -> dict[str, int]:
    """Kill the run again and again, then let it finish."""
    command = [sys.executable, "-m", "sepwise.cli", "lab", "run", args.recipe, "--scale", "smoke", "--workers", "2"]
    command += ["--seeds", str(args.seeds), "--data", args.data, "--results", str(folder)]
    recipe, moments, kills, in_trial = named(args.recipe), random.Random(0), 0, 0
    while kills < args.kills:
        process = _started(command)
        time.sleep(moments.uniform(args.least, args.most))
        if process.poll() is not None:
            print("the recipe finished before all kills: give more --seeds", file=sys.stderr)
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        done = len(Folder(folder).trials(recipe))
        in_trial += 0 < done < len(trials(recipe, "smoke", args.seeds))
        print(f"kill {kills}: {done} trials finished", file=sys.stderr, flush=True)
    if _started(command).wait():
        raise SepwiseError(f"the last run failed: {' '.join(command)}")
    return {"kills": kills, "kills_with_some_done": in_trial}


def _started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """In a process group of its own, and quiet."""
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def checked(args: argparse.Namespace, folder: Path, whole: Path) -> dict[str, int]:
    """What is wrong with the records, and with their numbers beside those of a run without kills."""
    recipe = named(args.recipe)
    lines = [r for r in records.read(Folder(folder).file(recipe), []) if r.what == "lab.trial"]
    shutil.copytree(
        Folder(folder).unfinished, Folder(whole).unfinished, ignore=shutil.ignore_patterns("*.pt", "*.lock")
    )
    run(args.recipe, "smoke", whole, Inputs(args.data), seeds=args.seeds, workers=2)
    mine, right = (Folder(f).trials(recipe) for f in (folder, whole))
    wanted = {t.key for t in trials(recipe, "smoke", args.seeds)}
    faults = {
        "lost": len(wanted - mine.keys()),
        "doubled": len(lines) - len(mine),
        "damaged": len(Folder(folder).damaged(recipe)),
        "other_numbers": sum(mine[key].value != right[key].value for key in wanted & mine.keys()),
        "left_over": len(list(Folder(folder).unfinished.glob("*.pt"))),
    }
    return {"trials": len(mine), **faults, "faults": sum(faults.values())}
