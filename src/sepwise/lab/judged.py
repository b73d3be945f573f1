"""The ledger beside what was found: each claim with the verdict of its recipe's finished trials."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .ledger import LEDGER, Claim
from .recipe import Finding, Recipe, named, names
from .trials import Folder, trials


@dataclass(frozen=True)
class Judged:
    """One claim.

    finding     None: no trial has been finished
    done, of    finished trials, and how many the recipe wants at this scale
    damaged     lines of its file that are no record
    """

    claim: Claim
    finding: Finding | None
    scale: str
    done: int
    of: int
    damaged: int = 0

    @property
    def verdict(self) -> str | None:
        return self.finding.verdict if self.finding else None

    def to_dict(self) -> dict[str, Any]:
        found = self.finding or Finding(self.claim.id, "", "")
        return {
            **asdict(self.claim),
            "verdict": self.verdict,
            "measured": found.says or None,
            "table": found.table,
            "figure": found.figure,
            "scale": self.scale,
            "trials": self.done,
            "trials_wanted": self.of,
            "damaged_lines": self.damaged,
        }


def judged(folder: Folder, scale: str) -> list[Judged]:
    """All claims of the ledger, in its order."""
    found: dict[str, Judged] = {}
    for name in names():
        recipe = named(name)
        found |= {each.claim.id: each for each in of_recipe(recipe, folder, scale)}
    return [found[claim.id] for claim in LEDGER]


def of_recipe(recipe: Recipe, folder: Folder, scale: str) -> list[Judged]:
    """The claims of one recipe."""
    results = folder.results(recipe, scale)
    findings = {f.claim: f for f in recipe.findings(results)} if results else {}
    wanted, damaged = len(trials(recipe, scale)), len(folder.damaged(recipe))
    mine = [claim for claim in LEDGER if claim.recipe == recipe.name]
    return [Judged(c, findings.get(c.id), scale, len(results), wanted, damaged) for c in mine]
