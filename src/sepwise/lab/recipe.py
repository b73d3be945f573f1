"""What a recipe is: the arms of an experiment, one trial of one arm, and what the trials say about a claim."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import SepwiseError
from .data import Labelled
from .ledger import LEDGER
from .meaning import led_to

SCALES = ("smoke", "small", "paper")
Numbers = dict[str, Any]
Pictures = Callable[[], tuple[Labelled, Labelled]]  # training and test pictures, read when first asked


@dataclass(frozen=True)
class Arm:
    """One way of doing it. `settings` are plain data and all that a trial of this arm depends on, beside the seed."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """What recipes read, as the user named it; a recipe that needs what is None refuses in a sentence.

    cifar10       as in `lab.data.cifar10`
    images        natural pictures: a folder, or a parquet table
    weights       folder of trained networks, NAME.safetensors each, named as in `lab.trained`
    benchmarks    folder of records that `./run bench` wrote
    """

    cifar10: str | None = None
    images: str | None = None
    weights: str | None = None
    benchmarks: str | None = None


@dataclass(frozen=True)
class At:
    """What a trial is given beside its settings and seed.

    pictures    gives training and test pictures of CIFAR-10
    inputs      the other things that were named
    checkpoint  file where a training may keep its state
    progress    called with the share done
    """

    pictures: Pictures
    inputs: Inputs = Inputs()
    checkpoint: Path | None = None
    progress: Callable[[float], None] = lambda done: None


@dataclass(frozen=True)
class Result:
    """One finished trial."""

    arm: str
    seed: int
    numbers: Numbers


@dataclass(frozen=True)
class Finding:
    """What the trials say about one claim.

    verdict    "holds", "does not hold" or "not shown"
    says       what was measured, in a sentence or two with the numbers in them
    table      rows of plain values under names; a row under other names than the one before begins another table
    figure     a chart as plain data (src/sepwise/report/chart.py), or several; None: there is nothing to draw
    """

    claim: str
    verdict: str
    says: str
    table: Sequence[Mapping[str, Any]] = ()
    figure: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Recipe:
    """A module of `recipes/`, with

    arms(scale) -> [Arm, ...]
    trial(settings, seed, at) -> numbers
    findings(results) -> [Finding, ...]    from all trials of one scale
    SEEDS                                  how many seeds at each scale
    """

    name: str
    module: ModuleType

    @property
    def asks(self) -> str:
        """The first line of its docstring."""
        return (self.module.__doc__ or "").strip().partition("\n")[0]

    @property
    def claims(self) -> tuple[str, ...]:
        return tuple(c.id for c in LEDGER if c.recipe == self.name)

    def arms(self, scale: str) -> list[Arm]:
        return self.module.arms(scale)

    def seeds(self, scale: str) -> int:
        return self.module.SEEDS[scale]

    def trial(self, settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
        return self.module.trial(settings, seed, at)

    def findings(self, results: Sequence[Result]) -> list[Finding]:
        return self.module.findings(results)

    @cached_property
    def source(self) -> str:
        """The text of the files that decide what a trial does: the recipe's first."""
        files = [self._file, *(file for file in self._led_to if file != self._file)]
        return "\n".join(file.read_text(encoding="utf-8") for file in files)

    @cached_property
    def version(self) -> str:
        """Changes when a trial might go another way: not with comments, docstrings, or how results are judged."""
        return hashlib.sha256("\n".join(self._led_to.values()).encode()).hexdigest()[:12]

    @cached_property
    def _led_to(self) -> dict[Path, str]:
        return led_to(self._file, {"arms", "trial"})

    @property
    def _file(self) -> Path:
        assert self.module.__file__
        return Path(self.module.__file__)


def named(name: str) -> Recipe:
    """The recipe of this name. Raises SepwiseError for another."""
    if name not in names():
        raise SepwiseError(f"there is no recipe {name!r}; the recipes are {', '.join(names())}")
    return Recipe(name, import_module(f".recipes.{name}", __package__))


def names() -> list[str]:
    """All recipes, in the order of the ledger."""
    return list(dict.fromkeys(c.recipe for c in LEDGER))
