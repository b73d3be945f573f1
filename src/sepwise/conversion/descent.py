"""How weights step: matrices by orthogonal updates (Muon), vectors by Adam, each in units of its own size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Muon, Optimizer

SMALLEST = 1e-2  # of a parameter, as far as the size of its steps is concerned
MUON_RMS = 0.2  # of the entries of an update of Muon's that "matches Adam"


class Descent:
    """Steps of a network's parameters whose entries have the root mean square `rate` times that of the parameter.

    An n x k x ... weight is a matrix of n rows to Muon (Jordan et al., "Muon: an optimizer for hidden layers", 2024):
    its update is the nearest orthogonal matrix of the averaged gradient, so that all of its directions move alike.
    A factored layer's gradient lies in few directions; under Adam the others hardly learn.
    """

    def __init__(self, network: nn.Module) -> None:
        parameters = list(network.parameters())
        self._matrices = [(p, nn.Parameter(p.detach().flatten(1).clone())) for p in parameters if _is_matrix(p)]
        matrices = [{"params": [flat], "size": _size(p) / MUON_RMS} for p, flat in self._matrices]
        vectors = [{"params": [p], "size": _size(p)} for p in parameters if not _is_matrix(p)]
        self.optimizers: list[Optimizer] = []
        if matrices:
            self.optimizers.append(Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
        if vectors:
            self.optimizers.append(Adam(vectors))

    def set_rate(self, rate: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["size"]

    def take_gradients(self) -> None:
        """Before a step: the matrices' gradients are those of their parameters."""
        for parameter, flat in self._matrices:
            flat.grad = None if parameter.grad is None else parameter.grad.flatten(1)

    @torch.no_grad()
    def give_weights(self) -> None:
        """After a step: the parameters are what their matrices have become."""
        for parameter, flat in self._matrices:
            parameter.copy_(flat.view(parameter.shape))

    def state(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    @torch.no_grad()
    def load(self, state: list[dict[str, Any]]) -> None:
        """Go on from an earlier state; the parameters are those of that time."""
        for parameter, flat in self._matrices:
            flat.copy_(parameter.flatten(1))
        for optimizer, held in zip(self.optimizers, state, strict=True):
            optimizer.load_state_dict(held)


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.dim() > 1 and min(len(parameter), parameter[0].numel()) > 1


def _size(parameter: Tensor) -> float:
    return max(float(parameter.detach().float().square().mean().sqrt()), SMALLEST)
