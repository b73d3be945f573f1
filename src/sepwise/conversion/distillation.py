"""How far a network is from its teacher: the loss that recovery lowers. Zero when both answer the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelError
from ..measure.agreement import kind_of
from .walk import outputs_of

TEMPERATURE = 4.0
SMALLEST = 1e-6  # of probabilities and variances


def output_loss(found: Any, wanted: Any) -> Tensor:
    """The mean over all floating-point outputs of what each kind of output loses.

    classes    T^2 KL(softmax(wanted / T) || softmax(found / T)), T = 4; Hinton et al. 2015, arXiv 1503.02531
    maps       binary cross entropy of found under wanted, less the entropy of wanted
    tensors    |found - wanted|^2 / |wanted - mean(wanted)|^2
    """
    pairs = list(zip(outputs_of(found), outputs_of(wanted), strict=True))
    if not pairs:
        raise ModelError("the model returns no floating-point tensor; there is nothing to learn from")
    return torch.stack([_loss(a.float(), b.float()) for a, b in pairs]).mean()


def output_error(found: Any, wanted: Any) -> tuple[float, float]:
    """|found - wanted|^2 and |wanted - mean(wanted)|^2, over all floating-point outputs."""
    pairs = [(a.float(), b.float()) for a, b in zip(outputs_of(found), outputs_of(wanted), strict=True)]
    return (
        float(sum((a - b).square().sum() for a, b in pairs)),
        float(sum((b - b.mean()).square().sum() for _, b in pairs)),
    )


def _loss(found: Tensor, wanted: Tensor) -> Tensor:
    kind = kind_of(wanted)
    if kind == "classes":
        soft = F.log_softmax(wanted / TEMPERATURE, dim=1)
        guess = F.log_softmax(found / TEMPERATURE, dim=1)
        return TEMPERATURE**2 * F.kl_div(guess, soft, reduction="batchmean", log_target=True)
    if kind == "maps":
        sure = wanted.clamp(SMALLEST, 1 - SMALLEST)
        guess = found.clamp(SMALLEST, 1 - SMALLEST)
        return F.binary_cross_entropy(guess, sure) - F.binary_cross_entropy(sure, sure)
    return relative_error(found, wanted)


def relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """|found - wanted|^2 / |wanted - mean(wanted)|^2"""
    return (found - wanted).square().mean() / wanted.var(correction=0).clamp_min(SMALLEST)


class Features:
    """What named modules of a network answered in its last call."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        self.names = names
        self.answers: dict[str, Tensor] = {}
        modules = dict(network.named_modules())
        for name in names:
            if name not in modules:
                raise ModelError(f"there is no module {name!r} to compare; the network has {', '.join(modules)[:300]}")
        self._modules = {name: modules[name] for name in names}

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Until the block ends, every call of the network fills `answers`."""
        hooks = [m.register_forward_hook(self._keeper(name)) for name, m in self._modules.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def loss(self, teacher: Features) -> Tensor:
        """The mean relative error over the named modules."""
        lost = []
        for name in self.names:
            found, wanted = self.answers[name].float(), teacher.answers[name].float()
            if found.shape != wanted.shape:
                raise ModelError(f"{name} answers {tuple(found.shape)}, that of the teacher {tuple(wanted.shape)}")
            lost.append(relative_error(found, wanted))
        return torch.stack(lost).mean()

    def _keeper(self, name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, answer: Any) -> None:
            tensors = outputs_of(answer)
            if not tensors:
                raise ModelError(f"{name} returns no floating-point tensor; name another module to compare")
            self.answers[name] = tensors[-1]

        return keep
