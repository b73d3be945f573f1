"""Are pixels correlated and channels independent, and does that tell which layers can be made separable?

Claim U2   Spatial locations are highly correlated, channels are fairly independent.
Measured   On what every convolution of a trained network reads, over pictures it was not trained on (HED, EfficientNet:
           natural ones; ResNets: test pictures of CIFAR-10): Pearson's r of a channel with itself one pixel on, mean
           over channels and both axes; mean |r| of two channels at one pixel. Beside them r at 2 to 8 pixels, the
           participation ratio, intra-kernel correlation, and what chance gives (`measure.correlation`).
Counts     "Highly correlated": r at one pixel above 0.5. "Fairly independent": mean |r| below 0.3. Each half holds for
           a network when it is so in most of its layers: Wilson's interval of that share is above one half; it does not
           hold where the interval is below. A half holds when it does for every network, and does not hold when it
           does not for at least half of them. The claim needs both halves. Not shown: fewer than two networks, or eight
           layers of one.

Claim U3   That correlation tells which layers can be made separable.
Measured   Each layer alone is converted at 28 % of its multiplications in the form that harms least (depthwise,
           spatial, CP; Tucker for EfficientNet, whose 1×1 layers have no other); its loss is the relative change of the
           network's output. Spearman's rank correlation with each predictor, over layers ranked inside their network,
           p adjusted for all predictors (Holm). Single forms, and 12 %, are shown beside it and judge nothing.
Counts     Holds when a correlation of the inputs (one pixel on, between channels, dimensions per channel) goes with the
           loss as the claim says, by 0.5 or more, p below 0.05, with one sign in all of at least two networks. Does not
           hold when the interval of each stays below 0.5 in the claim's direction. Kernels, size and fits are told, not
           judged.

A seed draws the pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import alike, telling
from ..layers import converted_layers, over_seeds, read_by_layers
from ..recipe import Arm, At, Finding, Numbers, Result
from ..trained import NAMES, natural, trained

SEEDS = {"smoke": 1, "small": 1, "paper": 3}
FORMS = ("depthwise", "spatial", "cp")

# Pictures that layers are read on, and that they are fitted and measured on; sizes of both, for natural ones.
CIFAR = {"smoke": (32, 32), "small": (256, 256), "paper": (1024, 1024)}
NATURAL = {"small": (8, 16), "paper": (32, 128)}
SIZES = {"hed": ([320, 480], [112, 160]), "efficientnet_lite0": ([224, 224], [224, 224])}


def arms(scale: str) -> list[Arm]:
    names = ("resnet20",) if scale == "smoke" else NAMES
    return [Arm(name, _settings(name, scale)) for name in names]


def _settings(name: str, scale: str) -> dict[str, Any]:
    forms = {"smoke": FORMS[:2]}.get(scale, FORMS)
    extra = ("tucker",) if name == "efficientnet_lite0" else ()
    pictures = (NATURAL if name in SIZES else CIFAR)[scale]
    return {"network": name, "pictures": pictures, "sizes": SIZES.get(name), "forms": [*forms, *extra]}


def trial(settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    network = trained(settings["network"], at.inputs)
    read, fit = _pictures(settings, seed, at, getattr(network, "picture", {}))
    layers = read_by_layers(network, read)
    return {"read": layers, "converted": converted_layers(network, fit, settings["forms"], at.progress)}


def _pictures(settings: Mapping[str, Any], seed: int, at: At, picture: dict) -> tuple[list[Tensor], list[Tensor]]:
    """Those to read the layers on, two at a time where they are large, and those to fit and measure on."""
    if settings["sizes"]:
        counts = zip(settings["pictures"], settings["sizes"], strict=True)
        read, fit = (natural(at.inputs, count, (h, w), picture, seed) for count, (h, w) in counts)
        return [part for batch in read for part in batch.split(2)], fit
    test = at.pictures()[1].some(sum(settings["pictures"]), seed)
    read, fit = torch.arange(len(test)).split(settings["pictures"])
    return [test.batch(rows) for rows in read.split(64)], [test.batch(rows) for rows in fit.split(64)]


def findings(results: Sequence[Result]) -> list[Finding]:
    order = sorted({r.arm for r in results}, key=NAMES.index)
    networks = {name: over_seeds([r.numbers for r in results if r.arm == name]) for name in order}
    return [alike.finding(networks), telling.finding(networks)]
