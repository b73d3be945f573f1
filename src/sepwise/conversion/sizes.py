"""A network at another size of picture than it was surveyed at: convolutions fit all sizes, costs belong to one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..factor import FORMS
from ..geometry import chain_macs
from ..graph.network import Network
from .survey import Survey


@torch.no_grad()
def input_sizes(network: Network, example: Tensor) -> dict[str, tuple[int, ...]]:
    """Spatial size of the input of each convertible convolution, for a picture of the size of `example`."""
    sizes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _, inputs: sizes.update({name: tuple(inputs[0].shape[2:])})

    hooks = [network.conv(site).register_forward_pre_hook(note(site.name)) for site in network.sites]
    try:
        network.graph(example[:1].clone())
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


def resized(found: Survey, example: Tensor) -> Survey:
    """The survey with all costs for one picture of the size of `example`; fits and effects stay what they are."""
    size = tuple(example.shape[2:])
    if size == found.size:
        return found
    sizes, layers = input_sizes(found.network, example), []
    for layer in found.layers:
        seen, conv = sizes[layer.name], layer.conv
        candidates = tuple(
            replace(c, macs=chain_macs(FORMS[c.form].steps(conv, c.rank), seen)) for c in layer.candidates
        )
        layers.append(replace(layer, macs=conv.macs(seen), candidates=candidates, size=seen))
    return replace(found, layers=tuple(layers), size=size)
