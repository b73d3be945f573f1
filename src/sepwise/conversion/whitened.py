"""Coordinates in which the first step of a chain meets uncorrelated inputs: short steps of a search go far in them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import ConvShape


class Whitened:
    """A first step that mixes channels meets channels whitened alike at all positions; a first step that filters each
    channel on its own meets that channel's positions whitened.

    root    lower, with root · root^T the covariance of the channels (g, I, I) or of the positions (g, I, K, K)
    gram    (g, P, P), the covariance of the patches in these coordinates, in `dtype`
    """

    def __init__(self, conv: ConvShape, gram: Tensor, by_position: bool, dtype: torch.dtype) -> None:
        """gram (g, P, P), positive definite, float64"""
        self.conv, self.by_position = conv, by_position
        channels = conv.in_channels // conv.groups
        cube = gram.unflatten(1, (channels, -1)).unflatten(3, (channels, -1))  # (g, I, K, I, K)
        if by_position:
            blocks = cube.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)  # (g, I, K, K)
            self.root = torch.linalg.cholesky(blocks)
        else:
            self.root = torch.linalg.cholesky(cube.diagonal(dim1=2, dim2=4).mean(-1))  # (g, I, I)
        self.gram = self.over(self.over(gram).mT.contiguous()).to(dtype)

    def dense(self, full: Tensor) -> Tensor:
        """A dense weight (g, O, I * K) in these coordinates, with its own axes."""
        cube = full.unflatten(2, (self.conv.in_channels // self.conv.groups, -1))
        turned = (
            torch.einsum("goiu,giuv->goiv", cube, self.root)
            if self.by_position
            else torch.einsum("goju,gji->goiu", cube, self.root)
        )
        return turned.reshape(self.conv.weight_shape)

    def over(self, rows: Tensor) -> Tensor:
        """rows · root^-T for rows (g, R, I * K)."""
        g, channels = self.conv.groups, self.conv.in_channels // self.conv.groups
        cube = rows.unflatten(2, (channels, -1))  # (g, R, I, K)
        if self.by_position:
            cube = torch.linalg.solve_triangular(self.root, cube.permute(0, 2, 3, 1), upper=False).permute(0, 3, 1, 2)
        else:
            flat = cube.permute(0, 2, 1, 3).flatten(2)  # (g, I, R * K)
            flat = torch.linalg.solve_triangular(self.root, flat, upper=False)
            cube = flat.unflatten(2, (rows.shape[1], -1)).permute(0, 2, 1, 3)
        return cube.reshape(g, rows.shape[1], -1)

    def unwhiten(self, first: Tensor) -> Tensor:
        """The first step in the original coordinates: first · root^-1 over its channels or positions."""
        g, channels = self.conv.groups, self.conv.in_channels // self.conv.groups
        if self.by_position:
            rows = first.reshape(g, channels, -1, first[0, 0].numel())  # (g, I, m, K)
            return torch.linalg.solve_triangular(self.root.mT, rows.mT, upper=True).mT.reshape_as(first)
        rows = first.unflatten(0, (g, -1)).flatten(3)  # (g, M, I, k)
        flat = rows.permute(0, 2, 1, 3).flatten(2)
        flat = torch.linalg.solve_triangular(self.root.mT, flat, upper=True)
        return flat.unflatten(2, (rows.shape[1], -1)).permute(0, 2, 1, 3).reshape_as(first)
