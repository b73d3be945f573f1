"""A trial of most recipes: a network learns CIFAR-10's classes and is tested, at the length that a scale sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..measure import cost
from .recipe import At, Numbers, Result
from .train import Training, error, predicted, train

TESTED = 6000  # pictures drawn from the test set by the seed, as in Ghosh 2017, section 4

# pictures: trained on, drawn by the seed; None: all 50,000. At scale "paper" the epochs are those of Ghosh 2017.
LENGTHS: dict[str, dict[str, Any]] = {
    "smoke": {"pictures": 512, "training": {"epochs": 1, "batch": 64}},
    "small": {"pictures": 5000, "training": {"epochs": 15, "batch": 64}},
    "paper": {"pictures": None, "training": {"epochs": 190, "batch": 128}},
}
SEEDS = {"smoke": 2, "small": 10, "paper": 10}


def length(scale: str, **training: Any) -> dict[str, Any]:
    """Settings of a scale, with other arguments of `Training` where they are given."""
    found = LENGTHS[scale]
    return {"pictures": found["pictures"], "training": {**found["training"], **training}}


def classify(build: Callable[[], nn.Module], settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    """Build the network from this seed's random numbers, train it, test it after the last epoch.

    settings    `pictures` and `training`, as from `length`
    returns     error (percent, all 10,000 test pictures) and error_6000 (of 6,000 drawn by the seed), losses by epoch,
                parameters, macs (one picture), diverged. A network that diverged has the error of chance, 90
    """
    torch.manual_seed(seed)
    network = build()
    taught, tested = at.pictures()
    taught = taught.some(settings["pictures"], seed)
    counted = cost(network.eval(), torch.zeros(1, *taught.images.shape[1:]))
    done = train(
        network, taught, Training(**settings["training"]), seed=seed, checkpoint=at.checkpoint, progress=at.progress
    )
    classes = predicted(done.network, tested)
    numbers = Numbers(parameters=counted.parameters, macs=counted.macs, losses=done.losses, diverged=done.diverged)
    sample = torch.randperm(len(tested), generator=torch.Generator().manual_seed(seed))[:TESTED]
    wrong = (classes != tested.labels).double()
    numbers["error"] = 90.0 if done.diverged else error(classes, tested)
    numbers["error_6000"] = 90.0 if done.diverged else 100 * float(wrong[sample].mean())
    return numbers


def by_arm(results: Sequence[Result], name: str = "error") -> dict[str, list[float]]:
    """One number of each arm, seed after seed: of the seeds that all arms have finished."""
    found: dict[str, dict[int, float]] = {}
    for r in results:
        found.setdefault(r.arm, {})[r.seed] = r.numbers[name]
    common = sorted(set.intersection(*(set(seeds) for seeds in found.values()))) if found else []
    return {arm: [seeds[s] for s in common] for arm, seeds in found.items()}
