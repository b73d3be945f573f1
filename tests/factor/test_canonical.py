"""The alternation never goes up, never runs away, and never ends below where it could have started."""

import pytest
import torch

from sepwise.factor import canonical as module
from sepwise.factor.canonical import NearlyCanonical, alternate, canonical


def random_tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return tensor / tensor.norm()


def lost(tensor: torch.Tensor, factors) -> float:
    return float((tensor - torch.einsum("gar,gbr,gcr->gabc", *factors)).square().sum() / tensor.square().sum())


def largest_term(factors) -> float:
    a, b, c = (f.norm(dim=1) for f in factors)
    return float((a * b * c).max())


@pytest.mark.parametrize("rank", [1, 3, 9])
def test_the_objective_never_rises_and_settles(rank):
    tensor = random_tensor(2, 8, 7, 6)
    start = tuple(random_tensor(2, n, rank, seed=n) for n in (8, 7, 6))
    found, history = alternate(tensor, (start[0], start[1], start[2]), 2000)
    objective = torch.stack(history)
    assert bool((objective.diff(dim=0) <= 1e-15).all())
    assert float(objective[-1].sum()) < float(objective[0].sum())
    assert len(history) < 2000
    again, _ = alternate(tensor, found, 50)
    assert lost(tensor, found) - lost(tensor, again) < 0.01


def test_terms_that_would_cancel_for_ever_are_held():
    # border rank 2, rank 3: the infimum over rank 2 is not reached, plain alternation grows without end
    e, f = torch.eye(3, dtype=torch.float64)[:2]
    noise = random_tensor(3, 3, 3, seed=5) / 10
    tensor = sum(torch.einsum("a,b,c->abc", *p) for p in ((e, e, f), (e, f, e), (f, e, e))) + noise
    start = [random_tensor(1, 3, 2, seed=s) for s in (1, 2, 3)]
    tensor = (tensor / tensor.norm())[None]
    held, _ = alternate(tensor, (start[0], start[1], start[2]), 2000)
    assert largest_term(held) < 30
    assert lost(tensor, held) < 0.1


def test_without_the_ridge_they_are_not(monkeypatch):
    monkeypatch.setattr(module, "RIDGE", 0.0)
    monkeypatch.setattr(module, "GAIN", 0.0)
    e, f = torch.eye(2, dtype=torch.float64)
    tensor = sum(torch.einsum("a,b,c->abc", *p) for p in ((e, e, f), (e, f, e), (f, e, e)))
    tensor = (tensor / torch.as_tensor(tensor).norm())[None]
    start = [random_tensor(1, 2, 2, seed=s) for s in (1, 2, 3)]
    free, _ = alternate(tensor, (start[0], start[1], start[2]), 1000)
    assert largest_term(free) > 5


@pytest.mark.parametrize("rank", [1, 2, 5, 11, 17])
def test_never_below_the_best_start(rank):
    tensor = random_tensor(1, 6, 5, 4, seed=rank)
    kinds = [(1, False), (2, False), (1, True), (2, True), (3, True)]
    starts = [module._Slices(tensor, axis, turned=turned).start(rank) for axis, turned in kinds]
    mine = lost(tensor, canonical(tensor, rank))
    assert mine <= min(lost(tensor, start) for start in starts) + 1e-15
    assert mine < 1


def test_starts_are_orthogonal_terms_so_that_energies_add_up():
    tensor = random_tensor(1, 6, 5, 4)
    for axis in (1, 2, 3):
        a, b, c = module._Slices(tensor, axis, turned=True).start(7)
        terms = torch.einsum("gar,gbr,gcr->rgabc", a, b, c).flatten(1)
        gram = terms @ terms.mT
        torch.testing.assert_close(gram, torch.diag(gram.diagonal()), rtol=0, atol=1e-12)


def test_each_tensor_is_decomposed_on_its_own_scale():
    tensor = random_tensor(1, 6, 5, 4)
    pair = torch.cat([tensor * 1e6, tensor * 1e-6, torch.zeros_like(tensor)])
    a, b, c = canonical(pair, 3)
    dense = torch.einsum("gar,gbr,gcr->gabc", a, b, c)
    torch.testing.assert_close(dense[0] / 1e6, dense[1] * 1e6, rtol=1e-6, atol=1e-8)
    assert float(dense[2].abs().max()) == 0


def test_starts_that_are_saddle_points_are_left():
    # every start of orthogonal terms keeps 2/3 of this tensor and is a fixed point; rank 2 comes as near as one likes
    e, f = torch.eye(2, dtype=torch.float64)
    tensor = torch.stack([torch.einsum("a,b,c->abc", *p) for p in ((e, e, f), (e, f, e), (f, e, e))]).sum(0)[None]
    assert lost(tensor, canonical(tensor, 2)) < 0.05


@pytest.mark.parametrize("work", [0.0, 1e3, 2e5, 1e9])
def test_bounded_work_is_never_below_its_starts_and_more_work_helps(monkeypatch, work):
    tensor = random_tensor(2, 12, 10, 9)
    kinds = [(2, True), (1, True), (2, False), (1, False)]
    starts = [module._Slices(tensor, axis, turned=turned).start(13) for axis, turned in kinds]
    monkeypatch.setattr(module, "WORK", work)
    mine = lost(tensor, NearlyCanonical(tensor)(13))
    assert mine < min(lost(tensor, start) for start in starts)
    monkeypatch.setattr(module, "WORK", 1e12)
    assert lost(tensor, NearlyCanonical(tensor)(13)) <= mine


def test_starts_are_followed_to_the_end_where_that_is_cheap(monkeypatch):
    followed: list[int] = []

    def counted(tensor, start, sweeps):
        followed.append(sweeps)
        return alternate(tensor, start, sweeps)

    monkeypatch.setattr(module, "alternate", counted)
    NearlyCanonical(random_tensor(1, 6, 5, 4))(3)
    assert followed == [module.MANY] * 3
    followed.clear()
    monkeypatch.setattr(module, "WORK", 40 * 6 * 5 * 4 * 3)
    NearlyCanonical(random_tensor(1, 6, 5, 4))(3)
    assert followed == [module.TRIAL, module.TRIAL, 40]
