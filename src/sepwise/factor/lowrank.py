"""The best rank-r approximation of matrices, as two balanced factors: what the forms with a closed answer share."""

from __future__ import annotations

import torch
from torch import Tensor

GRAM_PAYS_FROM = 256  # smaller side; above it the eigenvectors of the Gram matrix cost less than half of an SVD
SLENDER = 8  # times longer than wide; of such matrices the Gram matrix is tiny and the SVD ten times slower


def best_low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The two factors whose product is nearest to `matrix` in the Frobenius norm (Eckart-Young).

    matrix     (..., m, n), float64
    returns    left (..., m, rank) and right (..., rank, n); column j of left and row j of right have the same norm,
               the root of singular value j, so the first r of them are the answer for rank r

    At rank min(m, n) the product is `matrix` to rounding. Below, large matrices go through their Gram matrix, and so
    do slender ones at every rank: exact in the energy kept (to about 1e-15), but blind to the order of singular
    values below 1e-8 of the largest.

    >>> left, right = best_low_rank(torch.tensor([[4.0, 0.0], [0.0, 1.0]], dtype=torch.float64), 1)
    >>> tuple(left.shape), tuple(right.shape), float((left @ right).norm())
    ((2, 1), (1, 2), 4.0)
    """
    rows, columns = matrix.shape[-2:]
    slender = max(rows, columns) >= SLENDER * min(rows, columns)
    if not slender and (rank == min(rows, columns) or min(rows, columns) < GRAM_PAYS_FROM):
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        root = values[..., :rank].sqrt()
        return left[..., :, :rank] * root.unsqueeze(-2), root.unsqueeze(-1) * right[..., :rank, :]
    if rows > columns:
        right, left = best_low_rank(matrix.mT, rank)
        return left.mT, right.mT
    basis = torch.linalg.eigh(matrix @ matrix.mT).eigenvectors[..., -rank:].flip(-1)
    right = basis.mT @ matrix
    root = right.norm(dim=-1).sqrt()
    return basis * root.unsqueeze(-2), right / torch.where(root > 0, root, 1.0).unsqueeze(-1)


def singular_energies(matrix: Tensor) -> Tensor:
    """The squares of all singular values of (..., m, n), largest first: (..., min(m, n)).

    Large matrices go through their Gram matrix, exact to about 1e-15 of the largest.

    >>> singular_energies(torch.tensor([[0.0, 3.0], [2.0, 0.0]])).tolist()
    [9.0, 4.0]
    """
    rows, columns = matrix.shape[-2:]
    if min(rows, columns) < GRAM_PAYS_FROM:
        return torch.linalg.svdvals(matrix).square()
    gram = matrix @ matrix.mT if rows <= columns else matrix.mT @ matrix
    return torch.linalg.eigvalsh(gram).flip(-1).clamp(min=0.0)
