"""Other ways to make a trained network cheaper, by other libraries, at the same multiplications."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..conversion.agreed import answer_of
from ..errors import ModelError
from ..extras import require
from ..graph.network import copy_of

STEPS = 9  # of a bisection over the one number that each method has


@torch.no_grad()
def macs_of(model: nn.Module, x: Tensor) -> int:
    """Multiply-accumulates of all convolutions and matrix products that run, whoever wrote the layers."""
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() // 2


def tucker(dense: nn.Module, x: Tensor, fraction: float) -> nn.Module:
    """TensorLy-Torch: each convolution by Tucker's decomposition of its weight, one relative rank for all.

    fraction    of the multiplications of `dense` on `x`, at most
    Raises MissingExtraError; ModelError where no rank is cheap enough.
    """
    tltorch = require("tltorch", "comparing with TensorLy-Torch")

    def at(rank: float, decompose: bool = False) -> nn.Module:
        model = copy_of(dense).eval()
        for name, conv in list(model.named_modules()):
            if _factorizable(conv):
                layer = tltorch.FactorizedConv.from_conv(
                    conv,
                    rank=rank,
                    factorization="tucker",
                    implementation="factorized",
                    fixed_rank_modes="spatial",
                    decompose_weights=decompose,
                )
                model.set_submodule(name, layer)
        return model

    rank = _largest(at, x, fraction * macs_of(dense, x), "TensorLy-Torch's decomposition at its lowest rank")
    return at(rank, decompose=True)


@torch.enable_grad()
def pruned(dense: nn.Module, x: Tensor, fraction: float) -> nn.Module:
    """Torch-Pruning: the channels with the smallest weights removed, one share of them in all layers.

    fraction    of the multiplications of `dense` on `x`, at most
    Raises MissingExtraError; ModelError where no share is enough.
    """
    pruning = require("torch_pruning", "comparing with Torch-Pruning")
    outputs = answer_of(dense(x)).shape[1]

    def at(kept: float) -> nn.Module:
        model = copy_of(dense).eval().requires_grad_(True)
        answers = [m for m in model.modules() if _width(m) == outputs]
        pruner = pruning.pruner.BasePruner(
            model,
            x,
            importance=pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=1 - kept,
            ignored_layers=answers,
        )
        pruner.step()
        return model

    narrowest = min((w for w in map(_width, dense.modules()) if w not in (0, outputs)), default=1)
    # A layer that would lose its last channel loses none.
    return at(_largest(at, x, fraction * macs_of(dense, x), "Torch-Pruning at its largest share", 1 / narrowest))


def _width(module: nn.Module) -> int:
    """Output channels or features of a layer that has weights of its own; 0 for others."""
    return int(getattr(module, "out_features", getattr(module, "out_channels", 0)))


def _factorizable(conv: nn.Module) -> bool:
    """Whether TensorLy-Torch's layer is the same function at full rank: it knows one stride and neither groups nor
    kinds of padding.
    """
    if not isinstance(conv, nn.Conv2d) or conv.groups > 1 or conv.padding_mode != "zeros":
        return False
    return max(conv.kernel_size) > 1 and len(set(conv.stride)) == 1 and not isinstance(conv.padding, str)


def _largest(at: Callable[[float], nn.Module], x: Tensor, most: float, what: str, low: float = 0.01) -> float:
    """The largest number from `low` to 1 whose network takes at most so many multiplications."""
    high = 1.0
    if macs_of(at(low), x) > most:
        raise ModelError(f"{what} takes more multiplications than that")
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if macs_of(at(middle), x) <= most else (low, middle)
    return low
