"""Trials as tasks of a Ray cluster: a worker that dies takes its trial with it, and Ray starts that again elsewhere."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..errors import SepwiseError
from ..extras import require
from ..ops import keep_freed_memory
from .recipe import At, Inputs, Numbers, named
from .trials import Folder, Trial, trials
from .workers import Progress, left_of, missing_of, pictures

RETRIES = 5  # of a trial whose worker died
LOOK = 0.5  # seconds between looks at the cluster
REACHED = 10.0  # seconds


def run_on_ray(
    recipe: str,
    scale: str,
    folder: Path,
    inputs: Inputs,
    address: str,
    *,
    seeds: int | None = None,
    progress: Progress | None = None,
) -> int:
    """As `run`, with each trial on one core of a cluster. Records are written here; workers need this package and must
    find `inputs` under the same names. A trial goes on from its checkpoint where the worker sees `folder`.

    address    of the cluster, "auto" for the one this machine belongs to, "local" for a new one on this machine
    Raises SepwiseError when the cluster cannot be reached, and as `run`; what is finished is kept.
    """
    ray: Any = require("ray", "running trials on a cluster")
    found, place = named(recipe), Folder(folder)
    wanted = trials(found, scale, seeds)
    missing = missing_of(wanted, place)
    _check_reachable(address)
    try:
        ray.init(address=None if address == "local" else address, include_dashboard=False, log_to_driver=False)
    except Exception as error:
        raise SepwiseError(f"no Ray cluster answers at {address}: {error}") from None
    try:
        with ExitStack() as held:
            mine = [t for t in missing if held.enter_context(place.free(t))]
            refusals = _carry_out(ray, mine, place, inputs, len(wanted) - len(missing), len(wanted), progress)
    finally:
        ray.shutdown()
    return left_of(wanted, place, refusals)


def _check_reachable(address: str) -> None:
    """Ray itself waits five minutes for a cluster that is not there."""
    host, found, port = address.removeprefix("ray://").rpartition(":")
    if not found:
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACHED).close()
    except (OSError, ValueError) as error:
        raise SepwiseError(f"no Ray cluster answers at {address}: {error}") from None


def _carry_out(
    ray: Any, mine: list[Trial], place: Folder, inputs: Inputs, done: int, total: int, progress: Progress | None
) -> dict[str, None]:
    """Do the trials that this process holds; what was refused, each sentence once."""
    task = ray.remote(num_cpus=1, max_retries=RETRIES, retry_exceptions=False)(_trial)
    pending = {
        task.remote(t.recipe.name, t.recipe.version, t.scale, t.arm.name, t.seed, inputs, str(place.path.resolve())): t
        for t in mine
    }
    refusals: dict[str, None] = {}
    while pending:
        if progress:
            progress(done, total)
        ready, _ = ray.wait(list(pending), timeout=LOOK)
        for reference in ready:
            trial = pending.pop(reference)
            try:
                place.finish(trial, ray.get(reference))
                done += 1
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None) or error
                if not isinstance(cause, SepwiseError):
                    said = f"{type(cause).__name__}: {cause}".partition("\n")[0]
                    raise SepwiseError(f"a trial of {trial.recipe.name} failed: {said}") from None
                refusals[str(cause)] = None
    if progress:
        progress(done, total)
    return refusals


def _trial(recipe: str, version: str, scale: str, arm: str, seed: int, inputs: Inputs, folder: str) -> Numbers:
    """One trial, in a worker."""
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()
    found = named(recipe)
    if found.version != version:
        raise SepwiseError(f"a worker has another version of the recipe {recipe}: install the same sepwise everywhere")
    trial = Trial(found, scale, next(a for a in found.arms(scale) if a.name == arm), seed)
    place = Folder(Path(folder))
    checkpoint = place.checkpoint(trial) if place.unfinished.is_dir() else None
    return found.trial(trial.arm.settings, seed, At(pictures(inputs, place), inputs, checkpoint))
