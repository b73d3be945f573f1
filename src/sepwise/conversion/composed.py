"""Separable layers computed as the one dense convolution they stand for: the same function, and faster to train."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from ..errors import UnsupportedError
from ..nn import FactoredConv
from ..ops.conv import convolve

ROUNDS = 3  # training steps timed in each way; the fastest of each counts


@contextmanager
def composed(network: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Until the block ends, separable layers that are linear compose their weights and run one dense convolution.

    Parameters, their names and the gradients' meaning stay: the dense weight is a differentiable product of the steps.
    wanted    False: nothing changes
    """
    layers = linear_layers(network) if wanted else []
    for layer in layers:
        layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def composing_pays(network: nn.Module, step: Callable[[], object]) -> bool:
    """Whether `step`, a forward and backward pass of the network, is faster with composed weights on this machine."""
    seconds = {True: float("inf"), False: float("inf")}
    for _ in range(ROUNDS):
        for way in seconds:
            with composed(network, way):
                start = time.perf_counter()
                step()
                seconds[way] = min(seconds[way], time.perf_counter() - start)
    return seconds[True] < seconds[False]


def linear_layers(network: nn.Module) -> list[FactoredConv]:
    """The separable layers that one dense convolution is equal to."""
    return [m for m in network.modules() if isinstance(m, FactoredConv) and _is_linear(m)]


def _is_linear(module: FactoredConv) -> bool:
    if getattr(module, "activation", None) is not None:
        return False
    try:
        module.dense_bias()
    except UnsupportedError:  # something stands between its steps
        return False
    return True


def _forward(layer: FactoredConv, x: Tensor) -> Tensor:
    conv = layer.conv
    with torch.autocast(x.device.type, enabled=False):  # the steps' products may cancel: bfloat16 would lose the sum
        weight, bias = layer.dense_weight(), layer.dense_bias()
    return convolve(x, weight, bias, conv.geometry, conv.groups, layer.padding_mode)
