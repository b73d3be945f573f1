"""The last step of a chain for given earlier ones: linear least squares, solved exactly, block by block.

What the steps before the last answer is T x, T (middle values x patch) linear. The last step meets their covariance
T G T^T and their covariance with the wanted outputs B T^T; where T is mostly zeros the products skip them, which at 512
channels saves a factor of 3 (a step along one axis) to 500 (filters for each channel).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..factor import compose
from ..geometry import ConvShape

AT_ONCE = 256  # middle channels of a blueprint chain whose products are in memory together


@dataclass
class LastStep:
    """One block for each group of the last step, b of them for each group g of the whole convolution.

    normal   (g, b, mid, mid), float64        T G T^T of the block
    wanted   (g, b, outputs, mid), float64    B T^T of the block
    seen     (g, b, mid, P)                   T G; None where it is never whole in memory
    """

    normal: Tensor
    wanted: Tensor
    seen: Tensor | None = None

    def solve(self, jitter: float) -> Tensor:
        """wanted · normal^-1, float64; `jitter`, in units of the mean diagonal, keeps it solvable."""
        scale = self.normal.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True).clamp_min(1e-30).unsqueeze(-1)
        eye = torch.eye(self.normal.shape[-1], dtype=torch.float64)
        root = torch.linalg.cholesky(self.normal + jitter * scale * eye)
        return torch.cholesky_solve(self.wanted.mT, root).mT

    def loss(self, last: Tensor) -> Tensor:
        """tr(L N L^T) - 2 tr(L wanted^T) of each block, for L = last (g, b, outputs, mid): (g, b)."""
        return ((last @ self.normal - 2 * self.wanted) * last).sum((-2, -1))


def last_step(
    conv: ConvShape, first: Sequence[Tensor], steps: Sequence[ConvShape], gram: Tensor | None, cross: Tensor
) -> LastStep:
    """What the last of `steps` meets after the others, whose weights are `first`.

    gram    (g, P, P), None for the identity
    cross   (g, O, P); both of the coordinates in which `first` reads x
    """
    last = steps[-1]
    if len(first) == 1 and last.groups == conv.out_channels > conv.groups:
        return _after_pointwise(conv, first[0], last, _whole(gram, cross), cross)
    if len(first) == 1 and last.groups == conv.groups and steps[0].groups in (conv.in_channels, conv.groups):
        middle = _PerChannel if steps[0].groups == conv.in_channels > conv.groups else _AlongAxes
        return _through(middle(conv, first[0], steps), gram, cross)
    mid = last.parameters // last.out_channels
    one = torch.eye(mid, dtype=first[0].dtype).reshape(mid, *last.weight_shape[1:])
    unit = one.repeat(last.groups, *[1] * (one.dim() - 1))  # passes every middle value on, untouched
    reach = compose([*first, unit], [*(s.groups for s in steps[:-1]), last.groups])
    reach = reach.reshape(conv.groups, last.groups // conv.groups, mid, -1)  # T of each block: (g, b, mid, P)
    seen = reach if gram is None else reach @ gram.unsqueeze(1)
    wanted = cross.reshape(*reach.shape[:2], -1, cross.shape[-1]) @ reach.mT
    return LastStep((seen @ reach.mT).double(), wanted.double(), seen)


def _whole(gram: Tensor | None, cross: Tensor) -> Tensor:
    return torch.eye(cross.shape[-1], dtype=cross.dtype).expand(len(cross), -1, -1) if gram is None else gram


def _through(middle: _PerChannel | _AlongAxes, gram: Tensor | None, cross: Tensor) -> LastStep:
    seen = middle.of_rows(_whole(gram, cross))
    normal, wanted = middle.of_rows(seen.mT.contiguous()), middle.of_rows(cross.mT.contiguous()).mT
    return LastStep(normal.double().unsqueeze(1), wanted.double().unsqueeze(1), seen.unsqueeze(1))


class _PerChannel:
    """T of filters for each channel: middle value (i, m) reads the positions of channel i alone."""

    def __init__(self, conv: ConvShape, first: Tensor, steps: Sequence[ConvShape]) -> None:
        self.filters = first.reshape(conv.in_channels, -1, prod(conv.geometry.kernel))  # (g * I, m, K)

    def of_rows(self, rows: Tensor) -> Tensor:
        """T · rows, (g, P, n) -> (g, mid, n)."""
        g, _, n = rows.shape
        return (self.filters @ rows.reshape(len(self.filters), -1, n)).reshape(g, -1, n)


class _AlongAxes:
    """T of a step along some axes, where the last one runs along the others: middle value (m, v) reads column v."""

    def __init__(self, conv: ConvShape, first: Tensor, steps: Sequence[ConvShape]) -> None:
        kernel, own = conv.geometry.kernel, steps[0].geometry.kernel
        self.filters = first.reshape(conv.groups, -1, conv.in_channels // conv.groups * prod(own))  # (g, M, I * A)
        read = [2 + axis for axis, k in enumerate(own) if k > 1]
        left = [2 + axis for axis, k in enumerate(own) if k == 1]
        self.shape, self.order = (conv.in_channels // conv.groups, *kernel), (0, 1, *read, *left)

    def of_rows(self, rows: Tensor) -> Tensor:
        """T · rows, (g, P, n) -> (g, mid, n)."""
        g, _, n = rows.shape
        columns = rows.unflatten(1, self.shape).permute(*self.order, -1).reshape(g, self.filters.shape[2], -1)
        return (self.filters @ columns).reshape(g, -1, n)


def _after_pointwise(conv: ConvShape, mix: Tensor, last: ConvShape, gram: Tensor, cross: Tensor) -> LastStep:
    """When the last step filters each output's own channels of a pointwise `mix`: a ninth of the work."""
    g, channels = conv.groups, conv.in_channels // conv.groups
    rank = last.in_channels // last.out_channels
    mix = mix.reshape(g, -1, rank, channels)  # (g, out, r, I)
    gram = gram.unflatten(1, (channels, -1)).unflatten(3, (channels, -1)).permute(0, 3, 1, 2, 4)
    k = gram.shape[-1]
    gram = gram.flatten(2)  # (g, I', I * K * K)
    normal = []
    for part in mix.split(max(1, AT_ONCE // rank), dim=1):
        seen = (part.flatten(1, 2) @ gram).reshape(g, -1, rank, channels, k, k)
        normal.append(torch.einsum("gori,gosiuv->goruvs", part, seen).permute(0, 1, 2, 3, 5, 4))
    blocks = torch.cat(normal, dim=1).reshape(g, -1, rank * k, rank * k)
    wanted = torch.einsum("goik,gori->gork", cross.unflatten(2, (channels, -1)), mix)
    return LastStep(blocks.double(), wanted.flatten(2).unsqueeze(2).double())
