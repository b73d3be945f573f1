"""The dense kernel that a chain of convolutions stands for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ShapeError


def compose(weights: Sequence[Tensor], groups: Sequence[int]) -> Tensor:
    """The weight of the one convolution equal to these convolutions applied in order, with nothing between them.

        W[o, i, u] = sum over m of  second[o, m, u] * first[m, i, u]          (a kernel of size 1 broadcasts)

    weights    each (out, in / groups, *kernel); along any axis at most one of them has a kernel larger than 1
    groups     groups of each
    returns    (out, in / g, *kernel), g = the smallest of the groups that divide all others; differentiable

    >>> vertical, horizontal = torch.tensor([[[[1.0], [2.0], [1.0]]]]), torch.tensor([[[[-1.0, 0.0, 1.0]]]])
    >>> compose([vertical, horizontal], [1, 1])[0, 0, 1].tolist()
    [-2.0, 0.0, 2.0]
    """
    weight, g = weights[-1], groups[-1]
    for first, first_groups in zip(reversed(weights[:-1]), reversed(groups[:-1]), strict=True):
        weight, g = _compose_pair(first, first_groups, weight, g)
    return weight


def _compose_pair(first: Tensor, g1: int, second: Tensor, g2: int) -> tuple[Tensor, int]:
    _check_kernels(first, second)
    if g1 % g2 == 0:
        blocks = g1 // g2
        second = second.unflatten(1, (blocks, -1)).unflatten(0, (g2, -1))  # (g2, out, blocks, mid, *k)
        first = first.unflatten(0, (g2, blocks, -1))  # (g2, blocks, mid, in, *k)
        weight = torch.einsum("gobm...,gbmi...->gobi...", second, first)
        return weight.flatten(2, 3).flatten(0, 1), g2
    if g2 % g1 == 0:
        blocks = g2 // g1
        second = second.unflatten(0, (g1, blocks, -1))  # (g1, blocks, out, mid, *k)
        first = first.unflatten(0, (g1, blocks, -1))  # (g1, blocks, mid, in, *k)
        weight = torch.einsum("gbom...,gbmi...->gboi...", second, first)
        return weight.flatten(0, 2), g1
    raise ShapeError(f"compose: groups {g1} and {g2} of two steps must divide one another")


def _check_kernels(first: Tensor, second: Tensor) -> None:
    clash = [a for a, (k1, k2) in enumerate(zip(first.shape[2:], second.shape[2:], strict=True)) if k1 > 1 and k2 > 1]
    if clash:
        raise ShapeError(
            f"compose: both steps have a kernel along axis {clash[0]}: {tuple(first.shape)}, {tuple(second.shape)}"
        )
