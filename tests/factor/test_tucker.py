"""pointwise -> core -> pointwise: as good as a well-kept library's decomposition, exact where it must be."""

import numpy as np
import pytest
import torch
from tensorly.decomposition import partial_tucker

from sepwise.factor import FORMS, compose, energy_kept, factorize
from sepwise.factor.factors import shape_of
from sepwise.factor.tucker import tucker_bases
from sepwise.geometry import ConvShape, Geometry


def random_weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def energy_of_tensorly(weight: torch.Tensor, rank: tuple[int, int]) -> float:
    tensor = weight.flatten(2).numpy()
    found, _ = partial_tucker(tensor, rank=[rank[1], rank[0]], modes=[0, 1], n_iter_max=60, tol=1e-10)
    core, (out, into) = found
    lost = ((np.einsum("pqk,op,iq->oik", core, out, into) - tensor) ** 2).sum()
    return 1 - lost / (tensor**2).sum()


@pytest.mark.parametrize("rank", [(1, 1), (2, 5), (8, 3), (4, 4)])
@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (6, 20, 5), (10, 10, 2, 3, 3)])
def test_keeps_as_much_as_tensorly(shape, rank):
    weight = random_weight(*shape, seed=rank[0])
    # from the same start to the same local optimum; ours stops when a sweep gains less than a millionth
    assert factorize(weight, "tucker", rank).energy_kept >= energy_of_tensorly(weight, rank) - 1e-3


@pytest.mark.parametrize("layer", [3, 10, 17])
def test_keeps_as_much_as_tensorly_of_a_trained_kernel(shared, layer):
    from safetensors.torch import load_file

    kernels = [w for w in load_file(shared / "weights" / "resnet20-cifar10.safetensors").values() if w.ndim == 4]
    weight = kernels[layer].double()
    assert factorize(weight, "tucker", (8, 6)).energy_kept >= energy_of_tensorly(weight, (8, 6)) - 1e-3


def test_refined_beyond_the_truncated_higher_order_svd():
    weight = random_weight(12, 10, 3, 3)
    into = torch.linalg.svd(weight.transpose(0, 1).flatten(1)).U[:, :3]
    out = torch.linalg.svd(weight.flatten(1)).U[:, :4]
    start = torch.einsum("oikl,ip,oq->pqkl", weight, into, out).square().sum() / weight.square().sum()
    assert factorize(weight, "tucker", (3, 4)).energy_kept > float(start) + 1e-3


def test_with_one_rank_full_it_is_the_best_low_rank_matrix():
    weight = random_weight(12, 10, 3, 3)
    values = torch.linalg.svdvals(weight.flatten(1))
    expected = float(values[:4].square().sum() / values.square().sum())
    assert factorize(weight, "tucker", (10, 4)).energy_kept == pytest.approx(expected, abs=1e-12)


def test_bases_are_orthonormal_even_where_nothing_is_left():
    tensor = random_weight(2, 6, 5, 4)
    tensor[1] = 0
    for basis, rank in zip(tucker_bases(tensor, (3, 2)), (3, 2), strict=True):
        torch.testing.assert_close(basis.mT @ basis, torch.eye(rank, dtype=torch.float64).expand(2, rank, rank))


@pytest.mark.parametrize(
    ("shape", "full"), [((6, 4, 3, 3), (4, 6)), ((2, 40, 3), (6, 2)), ((40, 2, 3), (2, 6)), ((7, 5, 1, 1), (5, 5))]
)
def test_full_rank(shape, full):
    weight = random_weight(*shape)
    assert FORMS["tucker"].full_rank(ConvShape(shape[1], shape[0], Geometry.of(shape[2:]))) == full
    torch.testing.assert_close(factorize(weight, "tucker").dense_weight(), weight, rtol=1e-12, atol=1e-12)


def test_steps():
    into, core, out = factorize(random_weight(8, 3, 3, 5), "tucker", (2, 3), groups=2).steps
    assert (into.name, into.weight_shape, into.groups) == ("pointwise_in", (4, 3, 1, 1), 2)
    assert (core.name, core.weight_shape, core.groups) == ("core", (6, 2, 3, 5), 2)
    assert (out.name, out.weight_shape, out.groups) == ("pointwise_out", (8, 3, 1, 1), 2)


@pytest.mark.parametrize(
    ("shape", "ranks"), [((12, 8, 3, 3), ((2, 3), (5, 9), (8, 12))), ((12, 8, 1, 1), ((2, 2), (8, 8)))]
)
def test_starts_for_fits_are_near_the_answer_and_of_a_matrix_the_answer(shape, ranks):
    weight, form = random_weight(*shape, seed=3), FORMS["tucker"]
    start_at = form.starts(weight, 1)
    for rank in ranks:
        groups = [step.groups for step in form.steps(shape_of(weight.shape), rank)]
        final, start = (energy_kept(weight, compose(w, groups)) for w in (form.factor(weight, 1, rank), start_at(rank)))
        assert final - (0.02 if shape[2] > 1 else 1e-12) <= start <= final + 1e-12
    assert start == pytest.approx(1, abs=1e-12)
