"""Trials packed onto the cores of this machine: as many processes as asked, each with its share of threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from torch import multiprocessing

from ..conversion.processes import under_torchrun
from ..errors import SepwiseError
from ..ops import keep_freed_memory
from .data import Labelled, cifar10
from .recipe import Inputs, named
from .trials import Folder, Trial, attempt, trials

LOOK = 0.2  # seconds between looks at the workers
Progress = Callable[[float, int], None]


def run(
    recipe: str,
    scale: str,
    folder: Path,
    inputs: Inputs,
    *,
    seeds: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Do the trials that have no record yet. What was stopped goes on; trials that another process runs are its own.

    inputs      what the recipes may read
    seeds       how many; None: as many as the recipe wants at this scale
    workers     processes; None: one for each core, and one where `torchrun` started several
    progress    called as progress(trials done, of so many)
    returns     how many trials still have no record: those that another process is running
    Raises SepwiseError at the end with what trials refused: one that lacks its weights or pictures keeps no other from
    being done. Raises it at once when a trial failed, or a worker was killed. What is finished is kept.
    """
    wanted = trials(named(recipe), scale, seeds)
    missing = missing_of(wanted, Folder(folder))
    if workers is None:
        workers = 1 if under_torchrun() else len(os.sched_getaffinity(0))
    workers = min(workers, len(missing))
    if workers > 1:
        refusals = _in_processes(recipe, scale, folder, inputs, len(wanted), missing, workers, progress)
    else:
        refusals = _here(missing, Folder(folder), inputs, len(wanted), progress)
    return left_of(wanted, Folder(folder), refusals)


def left_of(wanted: Sequence[Trial], folder: Folder, refusals: Collection[str]) -> int:
    """How many trials have no record after all; SepwiseError with every sentence when some were refused."""
    left = len(missing_of(wanted, folder))
    if refusals:
        name = wanted[0].recipe.name
        raise SepwiseError("\n    ".join([f"{left} of {len(wanted)} trials of {name} are not done:", *refusals]))
    return left


def missing_of(wanted: Sequence[Trial], folder: Folder) -> list[Trial]:
    """The trials that have no record yet."""
    finished = folder.trials(wanted[0].recipe) if wanted else {}
    return [t for t in wanted if t.key not in finished]


def _here(
    missing: Sequence[Trial], folder: Folder, inputs: Inputs, total: int, progress: Progress | None
) -> dict[str, None]:
    """What was refused, each sentence once."""
    keep_freed_memory()  # training would else spend a third of its time on new memory
    read = pictures(inputs, folder)
    refusals: dict[str, None] = {}
    for number, trial in enumerate(missing):
        before = total - len(missing) + number

        def told(done: float, before: int = before) -> None:
            if progress:
                progress(before + done, total)

        try:
            attempt(trial, folder, inputs, read, told)
        except SepwiseError as refusal:
            refusals[str(refusal)] = None
        told(1.0)
    return refusals


def pictures(inputs: Inputs, folder: Folder) -> Callable[[], tuple[Labelled, Labelled]]:
    """Training and test pictures, read when first asked and kept decoded in the folder of unfinished trials."""

    @cache
    def read() -> tuple[Labelled, Labelled]:
        if inputs.cifar10 is None:
            raise SepwiseError(
                "this recipe needs CIFAR-10: pass --data FOLDER with train.parquet and test.parquet, or --data hub"
            )
        return cifar10(inputs.cifar10, folder.unfinished)

    return read


def _in_processes(
    recipe: str,
    scale: str,
    folder: Path,
    inputs: Inputs,
    total: int,
    missing: Sequence[Trial],
    workers: int,
    progress: Progress | None,
) -> dict[str, None]:
    """What was refused, each sentence once."""
    context = multiprocessing.get_context("spawn")
    done = context.Array("d", workers)  # how much of its trials each worker has behind it
    sentences = context.SimpleQueue()  # (whether the trial failed, what it said)
    refusals: dict[str, None] = {}
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    work = [(t.arm.name, t.seed) for t in missing]
    processes = [
        context.Process(
            target=_work, args=(number, recipe, scale, folder, inputs, work, threads, done, sentences), daemon=True
        )
        for number in range(workers)
    ]
    try:
        for process in processes:
            process.start()
        alive = True
        while alive:
            alive = any(p.is_alive() for p in processes)
            while not sentences.empty():
                failed, sentence = sentences.get()
                if failed:
                    raise SepwiseError(sentence)
                refusals[sentence] = None
            if progress:
                progress(total - len(missing) + min(sum(done[:]), len(missing)), total)
            if alive:
                time.sleep(LOOK)
        killed = [p for p in processes if p.exitcode]
        if killed:
            raise SepwiseError(
                f"{len(killed)} of {workers} workers ended with {killed[0].exitcode}; finished trials are kept, the "
                "same command goes on with the others"
            )
        return refusals
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _work(
    number: int,
    recipe: str,
    scale: str,
    folder: Path,
    inputs: Inputs,
    work: Sequence[tuple[str, int]],
    threads: int,
    done: Any,
    sentences: Any,
) -> None:
    """One worker: every trial that nobody else has."""
    import torch

    torch.set_num_threads(threads)
    keep_freed_memory()
    found = named(recipe)
    arms = {arm.name: arm for arm in found.arms(scale)}
    place, behind = Folder(folder), 0
    read = pictures(inputs, place)

    def told(share: float) -> None:
        done[number] = behind + share

    try:
        for arm, seed in work:
            try:
                if attempt(Trial(found, scale, arms[arm], seed), place, inputs, read, told):
                    behind += 1
                    told(0.0)
            except SepwiseError as refusal:
                sentences.put((False, str(refusal)))
    except KeyboardInterrupt:
        raise
    except Exception as error:
        sentences.put((True, f"a trial of {recipe} failed: {type(error).__name__}: {error}"))
