"""Trials of a recipe: each is done once, by one process, and is one appended record when it is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout

from .. import records
from ..conversion.processes import fabric_for, under_torchrun
from .recipe import Arm, At, Inputs, Pictures, Recipe, Result

TRIAL, SOURCE = "lab.trial", "lab.source"
UNFINISHED = ".unfinished"  # folder beside the records: locks and states of trials that are running or were stopped


@dataclass(frozen=True)
class Trial:
    """One arm with one seed, by the recipe as it reads now."""

    recipe: Recipe
    scale: str
    arm: Arm
    seed: int

    @cached_property
    def about(self) -> dict[str, object]:
        """What a record of it says beside its numbers."""
        return {
            "recipe": self.recipe.name,
            "version": self.recipe.version,
            "scale": self.scale,
            "arm": self.arm.name,
            "settings": dict(self.arm.settings),
            "seed": self.seed,
        }

    @cached_property
    def key(self) -> str:
        return _key(self.about)


def trials(recipe: Recipe, scale: str, seeds: int | None = None) -> list[Trial]:
    """All of them, seed by seed: stopped half-way, every arm has been tried as often as the others."""
    count = recipe.seeds(scale) if seeds is None else seeds
    return [Trial(recipe, scale, arm, seed) for seed in range(count) for arm in recipe.arms(scale)]


class Folder:
    """Where the records of all recipes lie, and what unfinished trials keep."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, recipe: Recipe) -> Path:
        return self.path / f"{recipe.name}.jsonl"

    @property
    def unfinished(self) -> Path:
        return self.path / UNFINISHED

    def trials(self, recipe: Recipe) -> dict[str, records.Record]:
        """The record of each finished trial, of any version and scale, by its key."""
        return {_key(r.about): r for r in self._records(recipe) if r.what == TRIAL}

    def results(self, recipe: Recipe, scale: str) -> list[Result]:
        """The trials of the recipe as it reads now."""
        arms = recipe.arms(scale)
        found = self.trials(recipe)
        seeds = sorted({r.about["seed"] for r in found.values()})
        wanted = {Trial(recipe, scale, arm, seed).key for seed in seeds for arm in arms}
        return [Result(r.about["arm"], r.about["seed"], r.value) for key, r in found.items() if key in wanted]

    def damaged(self, recipe: Recipe) -> list[int]:
        """Numbers of the lines that are no record: left where they are, counted as no trial."""
        found: list[int] = []
        if self.file(recipe).exists():
            list(records.read(self.file(recipe), found))
        return found

    def finish(self, trial: Trial, numbers: dict) -> None:
        """Append the record of a trial, before the first one of a version its source text; its state is not needed."""
        path, version = self.file(trial.recipe), {"recipe": trial.recipe.name, "version": trial.recipe.version}
        new = [records.here(TRIAL, numbers, about=trial.about)]
        if not any(r.what == SOURCE and r.about == version for r in self._records(trial.recipe)):
            new.insert(0, records.Record(SOURCE, trial.recipe.source, about=version))
        self.path.mkdir(parents=True, exist_ok=True)
        records.append(path, new)
        self.checkpoint(trial).unlink(missing_ok=True)

    def checkpoint(self, trial: Trial) -> Path:
        return self.unfinished / f"{trial.recipe.name}-{trial.key}.pt"

    @contextmanager
    def free(self, trial: Trial) -> Iterator[bool]:
        """Whether the trial is to be done, and by this process alone: the lock goes with it, however it ends."""
        self.unfinished.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.checkpoint(trial).with_suffix(".lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield trial.key not in self.trials(trial.recipe)
        finally:
            lock.release()

    def _records(self, recipe: Recipe) -> Iterable[records.Record]:
        return records.read(self.file(recipe), []) if self.file(recipe).exists() else ()


def attempt(
    trial: Trial, folder: Folder, inputs: Inputs, pictures: Pictures, progress: Callable[[float], None]
) -> bool:
    """Do the trial unless it is done, or being done by another process; False then.

    Started by `torchrun`, all processes do it at once: the first one locks and records, all of them train.
    """
    crew = fabric_for("32-true", "training over several processes") if under_torchrun() else None
    if crew:
        crew.launch()
    with ExitStack() as held:
        first = crew is None or crew.is_global_zero
        free = first and held.enter_context(folder.free(trial))
        if not (crew.broadcast(free) if crew else free):
            return False
        at = At(pictures, inputs, folder.checkpoint(trial), progress)
        numbers = trial.recipe.trial(trial.arm.settings, trial.seed, at)
        if first:
            folder.finish(trial, numbers)
        if crew:
            crew.barrier()
        return True


def _key(about: dict) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
