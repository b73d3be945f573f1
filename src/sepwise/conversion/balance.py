"""The steps of separable layers brought to one scale, so that one learning rate suits all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .composed import linear_layers

SWEEPS = 8  # over the joints of a chain; one is exact for two steps


@torch.no_grad()
def balance(network: nn.Module) -> None:
    """Rescale each middle channel of each linear separable layer, in place: its weights before and after it get the
    same norm, and the layer computes the same function.

    A chain's scale is otherwise arbitrary: 100 w and v / 100 are the same layer, and no rate suits both.
    """
    for layer in linear_layers(network):
        for _ in range(SWEEPS):
            for first, second, step in zip(layer.weights, layer.weights[1:], layer.steps[1:], strict=False):
                _join(first, second, step.groups)


def _join(first: Tensor, second: Tensor, groups: int) -> None:
    into, out = _norm(first, (0,)), _norm(second.unflatten(0, (groups, -1)), (0, 2))
    scale = (out.flatten() / into).sqrt()
    scale = torch.where(scale.isfinite() & (scale > 0), scale, 1.0)  # a channel that carries nothing stays
    first *= scale.view(-1, *[1] * (first.dim() - 1))
    second /= (
        scale.view(groups, 1, -1, *[1] * (second.dim() - 2))
        .expand(groups, second.shape[0] // groups, *[-1] * (second.dim() - 1))
        .flatten(0, 1)
    )


def _norm(weight: Tensor, kept: Sequence[int]) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=[axis for axis in range(weight.dim()) if axis not in kept])
