"""`./run bench claims`: the table of `docs/claims.md`, from the records of the lab."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.arena import ROOT
from sepwise.lab import Folder, judged

RESULTS = ROOT / "lab-results"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("bench claims", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--scale", default="small")
    args = parser.parse_args(arguments)
    print(table(args.results, args.scale))
    return 0


def table(results: Path = RESULTS, scale: str = "small") -> str:
    """A row for each claim: its verdict, and what was measured."""
    lines = ["| id | claim | verdict | measured |", "|---|---|---|---|"]
    for each in judged(Folder(results), scale):
        measured = each.finding.says if each.finding else f"not run yet: `sepwise lab run {each.claim.recipe}`"
        if each.finding and each.done < each.of:
            measured += f" ({each.done} of {each.of} trials so far.)"
        cells = [each.claim.id, each.claim.says, f"**{each.verdict}**" if each.verdict else "–", measured]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
