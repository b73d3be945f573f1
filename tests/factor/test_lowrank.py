"""The cut at r singular values: as good as the theorem says, and beaten by nobody."""

import pytest
import torch

from sepwise.factor import lowrank
from sepwise.factor.lowrank import best_low_rank, singular_energies


def random_matrix(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=[256, 2], ids=["singular value decomposition", "Gram matrix"])
def way(request, monkeypatch):
    monkeypatch.setattr(lowrank, "GRAM_PAYS_FROM", request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (3, 6, 6), (2, 2, 9, 4)])
@pytest.mark.parametrize("rank", [1, 3, 4])
def test_what_is_lost_are_the_small_singular_values(shape, rank):
    matrix = random_matrix(*shape)
    left, right = best_low_rank(matrix, rank)
    lost = (matrix - left @ right).square().sum((-2, -1))
    torch.testing.assert_close(lost, torch.linalg.svdvals(matrix)[..., rank:].square().sum(-1), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(left.norm(dim=-2), right.norm(dim=-1))  # balanced
    torch.testing.assert_close(left.norm(dim=-2), torch.linalg.svdvals(matrix)[..., :rank].sqrt())


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("rank", [1, 2])
def test_alternating_least_squares_and_random_steps_never_beat_it(rank):
    matrix = random_matrix(6, 9)
    left, right = best_low_rank(matrix, rank)
    best = float((matrix - left @ right).norm())
    for seed in range(5):
        other = random_matrix(6, rank, seed=seed)
        for _ in range(200):
            other_right = torch.linalg.lstsq(other, matrix).solution
            other = torch.linalg.lstsq(other_right.mT, matrix.mT).solution.mT
        assert float((matrix - other @ other_right).norm()) >= best - 1e-12
        nudged = (left + 1e-3 * random_matrix(*left.shape, seed=seed)) @ right
        assert float((matrix - nudged).norm()) > best


@pytest.mark.usefixtures("way")
def test_an_exact_low_rank_stays_exact():
    matrix = random_matrix(12, 3) @ random_matrix(3, 20)
    left, right = best_low_rank(matrix, 3)
    torch.testing.assert_close(left @ right, matrix, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("way")
def test_more_rank_than_the_matrix_has():
    left, right = best_low_rank(torch.outer(torch.arange(4.0), torch.ones(5)).double(), 3)
    assert bool(left.isfinite().all() & right.isfinite().all())
    torch.testing.assert_close((left @ right)[:, 0], torch.arange(4.0).double())


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("shape", [(5, 8), (2, 8, 5)])
def test_singular_energies(shape):
    matrix = random_matrix(*shape)
    torch.testing.assert_close(singular_energies(matrix), torch.linalg.svdvals(matrix).square(), rtol=1e-9, atol=1e-12)


def test_both_ways_agree_where_they_meet():
    matrix = random_matrix(256, 300)
    gram, full = best_low_rank(matrix, 40), torch.linalg.svd(matrix)
    kept = full.S[:40].square().sum()
    torch.testing.assert_close((gram[0] @ gram[1]).square().sum(), kept, rtol=1e-12, atol=0)
