"""pointwise -> dense core -> pointwise: fewer channels for the kernel to work on. Rank = (core in, core out)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from ..geometry import ConvShape, Geometry
from .factors import Rank, cube_of, shape_of

SWEEPS = 100
GAIN = 1e-6  # of the whole energy; a sweep that gains less is the last one


class Tucker:
    """W[o, i, u] = sum over p < rank_out, q < rank_in of  pointwise_out[o, p] * core[p, q, u] * pointwise_in[q, i].

    Both pointwise steps have orthonormal rows or columns. The start is the truncated higher-order SVD (De Lathauwer
    et al. 2000), refined by orthogonal iteration (HOOI) until a sweep gains nothing: a local optimum, never below
    the start. With one of the two ranks full it is the global one. Kim et al. 2016, arXiv 1511.06530.
    """

    name = "tucker"

    def why_not(self, conv: ConvShape) -> str | None:
        return None

    def full_rank(self, conv: ConvShape) -> tuple[int, int]:
        into, out = conv.in_channels // conv.groups, conv.out_channels // conv.groups
        positions = prod(conv.geometry.kernel)
        return min(into, out * positions), min(out, into * positions)

    def steps(self, conv: ConvShape, rank: Rank) -> tuple[ConvShape, ...]:
        assert isinstance(rank, tuple)
        into, out = (r * conv.groups for r in rank)
        ones = Geometry.of((1,) * conv.geometry.axes)
        return (
            ConvShape(conv.in_channels, into, ones, conv.groups, "pointwise_in"),
            ConvShape(into, out, conv.geometry, conv.groups, "core"),
            ConvShape(out, conv.out_channels, ones, conv.groups, "pointwise_out"),
        )

    def factor(self, weight: Tensor, groups: int, rank: Rank) -> tuple[Tensor, ...]:
        assert isinstance(rank, tuple)
        return self._chain(weight, groups, rank, tucker_bases(cube_of(weight, groups), rank))

    def starts(self, weight: Tensor, groups: int) -> Callable[[Rank], tuple[Tensor, ...]]:
        tensor = cube_of(weight, groups)
        into, out = _Leading(tensor.transpose(1, 2)), _Leading(tensor)
        sweeps = 1 if tensor.shape[3] > 1 else 0  # of a matrix the singular vectors are the answer

        def start(rank: Rank) -> tuple[Tensor, ...]:
            assert isinstance(rank, tuple)
            first = into(rank[0]), out(rank[1])
            return self._chain(weight, groups, rank, tucker_bases(tensor, rank, sweeps, first))

        return start

    def _chain(self, weight: Tensor, groups: int, rank: Rank, bases: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        shapes = [step.weight_shape for step in self.steps(shape_of(weight.shape, groups), rank)]
        into, out = bases
        core = torch.einsum("goik,gop,giq->gpqk", cube_of(weight, groups), out, into)
        return into.mT.reshape(shapes[0]), core.reshape(shapes[1]), out.reshape(shapes[2])


def tucker_bases(
    tensor: Tensor, rank: tuple[int, int], sweeps: int = SWEEPS, first: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Orthonormal bases (g, in, rank_in), (g, out, rank_out) that keep the most of `tensor` (g, out, in, positions).

    first    bases to start from; None: the leading singular vectors
    """
    rank_in, rank_out = rank
    _, outs, ins, _ = tensor.shape
    into, out = first or (_leading(tensor.transpose(1, 2), rank_in), _leading(tensor, rank_out))
    energy, whole = tensor.new_zeros(()), tensor.square().sum()
    for _ in range(sweeps):
        if rank_out < outs:  # a full basis keeps everything, whatever the other does
            out = _leading(torch.einsum("goik,giq->goqk", tensor, into), rank_out)
        seen = torch.einsum("goik,gop->gipk", tensor, out)
        if rank_in < ins:
            into = _leading(seen, rank_in)
        before, energy = energy, torch.einsum("gipk,giq->gqpk", seen, into).square().sum()
        if energy - before <= GAIN * whole or rank_in == ins or rank_out == outs:
            break
    return into, out


class _Leading:
    """`_leading` of one tensor, at one rank after another."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.all: Tensor | None = None

    def __call__(self, rank: int) -> Tensor:
        if self.tensor[0, 0].numel() <= rank:
            return _leading(self.tensor, rank)
        if self.all is None:
            self.all = _leading(self.tensor, self.tensor.shape[1])
        return self.all[..., :rank]


def _leading(tensor: Tensor, rank: int) -> Tensor:
    """The `rank` leading left singular vectors of (g, m, a, b) unfolded to (g, m, a * b), always orthonormal."""
    matrix = tensor.flatten(2)
    if matrix.shape[2] <= rank < matrix.shape[1]:  # every singular value counts, and the Gram matrix blurs small ones
        return torch.linalg.svd(matrix, full_matrices=True).U[..., :rank]
    return torch.linalg.eigh(matrix @ matrix.mT).eigenvectors[..., -rank:].flip(-1)
