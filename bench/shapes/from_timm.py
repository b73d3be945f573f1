"""Writes the shapes of timm's networks: `.venv/bin/python -m bench.shapes.from_timm` (needs timm, no trained weights).

A pair is a depthwise convolution and the 1x1 convolution or linear layer that reads it next, with nothing between them
but a batch norm (folded: both steps have biases) and an activation. Equal pairs are one row with a count. In ConvNeXt a
layer norm over the channels of each pixel stands between the 7x7 depthwise step and the first linear layer; the pair is
taken without it, as an operator of depthwise and pointwise steps alone can compute it.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.workload import Workload
from sepwise.sources.models import load_model

NETWORKS = {
    "mobilenet_v1": "timm:mobilenetv1_100",
    "mobilenet_v2": "timm:mobilenetv2_100",
    "xception": "timm:legacy_xception",
    "efficientnet_lite0": "timm:efficientnet_lite0",
    "convnext_tiny": "timm:convnext_tiny",
}
# By the name of the class, because timm has some of its own.
ACTIVATIONS = {"ReLU": "relu", "ReLU6": "relu6", "SiLU": "silu", "Hardswish": "hardswish", "GELU": "gelu"}
NORMS = (nn.BatchNorm2d, nn.LayerNorm)
BATCHES = (1, 32)
# A batch of 32 is timed while its input and output stay below this many bytes of float32 and its multiplications below
# this number: beyond, one call takes a tenth of a second on one core, and the whole benchmark its evening.
MOST_BYTES, MOST_MACS = 64 * 2**20, 4e9


def pairs(network: str) -> Iterator[Workload]:
    """The pairs of a network at batch 1, in the order in which they run."""
    loaded = load_model(network)
    steps = _steps(loaded.model, torch.zeros(1, loaded.channels, *loaded.size))
    for index, step in enumerate(steps):
        module = step.module
        if not (isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels):
            continue
        between, after = _activation_after(steps, index)
        if after is None or not _is_pointwise(steps[after].module):
            continue
        activation, _ = _activation_after(steps, after)
        pointwise, (kernel, _), (stride, _) = steps[after].module, module.kernel_size, module.stride
        assert module.padding == (kernel // 2, kernel // 2)
        assert module.dilation == (1, 1)
        assert isinstance(pointwise.weight, Tensor)
        out_channels = pointwise.weight.shape[0]
        height, width = step.x.shape[2:]
        multiplier = module.out_channels // module.in_channels
        sizes = (1, module.in_channels, out_channels, height, width, kernel, stride, kernel // 2, multiplier)
        stride_name = f"s{stride}" if stride > 1 else ""
        linear = "" if activation else "linear"
        name = f"{module.in_channels}x{height}k{kernel}{stride_name}to{out_channels}{linear}"
        yield Workload(name, *sizes, between, activation)


@dataclass(frozen=True)
class Step:
    """A layer that ran; the versions count what was done in place to what it read and to what it gave."""

    module: nn.Module
    x: Tensor
    y: Tensor
    versions: tuple[int, int]


def _steps(model: nn.Module, x: Tensor) -> list[Step]:
    """Every layer in the order they ran. All tensors are kept, so that no memory is used twice."""
    steps: list[Step] = []
    inside_norms = {part for module in model.modules() if isinstance(module, NORMS) for part in module.children()}
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]  # so that what one layer gave and what the next made of it are two tensors
        if _counts(module) and module not in inside_norms:
            module.register_forward_hook(
                lambda m, inputs, y: steps.append(Step(m, inputs[0], y, (inputs[0]._version, y._version)))
            )
    with torch.no_grad():
        model(x)
    return steps


def _activation_after(steps: list[Step], index: int) -> tuple[str | None, int | None]:
    """The activation that follows a step at once, and the next convolution or linear layer that reads the outcome."""
    found, last = None, steps[index]
    for number in range(index + 1, len(steps)):
        step = steps[number]
        if not _reads(step, last):
            break
        if isinstance(step.module, NORMS):
            found = _activation(getattr(step.module, "act", None)) or found  # timm's norms hold activations
        elif _activation(step.module):
            found = _activation(step.module)
        else:
            return found, number
        last = step
    return found, None


def _counts(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv2d, nn.Linear, *NORMS)) or _activation(module) is not None


def _activation(module: nn.Module | None) -> str | None:
    return ACTIVATIONS.get(type(module).__name__)


def _reads(step: Step, last: Step) -> bool:
    """Whether a layer read what the last one gave, as it gave it; ConvNeXt moves the channels to the end in between."""
    return step.x.data_ptr() == last.y.data_ptr() and step.versions[0] == last.versions[1]


def _is_pointwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def main() -> None:
    for file, network in NETWORKS.items():
        counted = Counter(pairs(network))
        found = [replace(w, count=count) for w, count in counted.items()]
        many = [replace(w, name=f"{w.name}b{b}", batch=b) for b in BATCHES[1:] for w in found]
        kept = [w for w in many if w.bytes_moved("float32") <= MOST_BYTES and sum(w.macs) <= MOST_MACS]
        with (Path(__file__).parent / f"{file}.csv").open("w", newline="", encoding="utf-8") as target:
            rows = [{name: "" if v is None else v for name, v in w.to_dict().items()} for w in found + kept]
            columns = [name for name in rows[0] if name != "data"]
            writer = csv.DictWriter(target, columns, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        print(f"{file}: {sum(counted.values())} pairs, {len(found)} different, {len(kept)} of them also at batch 32")


if __name__ == "__main__":
    main()
