"""pointwise -> depthwise -> pointwise: as good as a well-kept library's decomposition, exact where it must be."""

import pytest
import tensorly
import torch
from tensorly.decomposition import parafac

from sepwise.factor import FORMS, compose, energy_kept, factorize, shape_of
from sepwise.geometry import ConvShape, Geometry


def random_weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def energy_of_tensorly(weight: torch.Tensor, rank: int) -> float:
    tensor = weight.flatten(2).numpy()
    best = 0.0
    starts = ("svd", "random") if rank <= min(tensor.shape) else ("random",)  # its svd start goes no further
    for start in starts:
        found = parafac(tensor, rank, init=start, n_iter_max=200, tol=1e-9, random_state=0)
        lost = ((tensorly.cp_to_tensor(found) - tensor) ** 2).sum() / (tensor**2).sum()
        best = max(best, 1 - lost)
    return best


@pytest.mark.parametrize("rank", [1, 4, 10])
@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (6, 20, 5), (10, 10, 2, 3, 3)])
def test_keeps_as_much_as_tensorly(shape, rank):
    weight = random_weight(*shape, seed=rank)
    assert factorize(weight, "cp", rank).energy_kept >= energy_of_tensorly(weight, rank) - 0.01


@pytest.mark.parametrize("layer", [3, 10, 17])
def test_keeps_as_much_as_tensorly_of_a_trained_kernel(shared, layer):
    from safetensors.torch import load_file

    kernels = [w for w in load_file(shared / "weights" / "resnet20-cifar10.safetensors").values() if w.ndim == 4]
    weight = kernels[layer].double()
    assert factorize(weight, "cp", 12).energy_kept >= energy_of_tensorly(weight, 12) - 0.005


def test_the_best_term_alone_is_found():
    # an orthogonally decomposable tensor: its best approximation of rank r are its r largest terms
    a, b, c = (torch.linalg.qr(random_weight(n, 5, seed=n)).Q for n in (8, 6, 9))
    sizes = torch.tensor([5.0, 4, 3, 2, 1], dtype=torch.float64)
    weight = torch.einsum("r,or,ir,kr->oik", sizes, a, b, c)
    for rank in (1, 2, 3, 4, 5):
        expected = float(sizes[:rank].square().sum() / sizes.square().sum())
        assert factorize(weight, "cp", rank).energy_kept == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("groups", [1, 3])
def test_kernels_built_from_few_terms_are_recovered_far_below_full_rank(groups):
    blocks = [
        torch.einsum("or,ir,kr->oik", *(random_weight(n, 5, seed=n + g) for n in (20, 16, 9))) for g in range(groups)
    ]
    weight = torch.cat(blocks).unflatten(2, (3, 3))
    assert factorize(weight, "cp", 5, groups=groups).energy_kept > 1 - 1e-6


def test_a_depthwise_separable_kernel_is_exact_at_rank_in_channels():
    dense = random_weight(9, 5, 1, 1) * random_weight(1, 5, 3, 3, seed=1)
    torch.testing.assert_close(factorize(dense, "cp", 5).dense_weight(), dense, rtol=1e-12, atol=1e-12)


def test_a_blueprint_kernel_is_exact_at_rank_out_channels():
    dense = random_weight(9, 5, 1, 1) * random_weight(9, 1, 3, 3, seed=1)
    torch.testing.assert_close(factorize(dense, "cp", 9).dense_weight(), dense, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shape", "step", "axis"), [((30, 4, 3, 3), 0, 1), ((4, 30, 3, 3), 2, 0)])
def test_at_full_rank_one_pointwise_step_only_copies(shape, step, axis):
    weight = random_weight(*shape)
    factors = factorize(weight, "cp")
    assert factors.rank == 4 * 9
    assert bool(((factors.weights[step].flatten(1) != 0).sum(axis) == 1).all())
    torch.testing.assert_close(factors.dense_weight(), weight, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "full"), [((9, 4, 3, 3), 36), ((9, 4, 2, 2), 16), ((2, 40, 3), 6), ((2, 3, 5, 5), 6)]
)
def test_full_rank_is_the_product_of_the_two_smallest_sides(shape, full):
    conv = ConvShape(shape[1], shape[0], Geometry.of(shape[2:]))
    assert FORMS["cp"].full_rank(conv) == full
    assert factorize(random_weight(*shape), "cp", full).energy_kept == pytest.approx(1, abs=1e-12)


def test_steps():
    into, depthwise, out = factorize(random_weight(8, 3, 3, 5), "cp", 4, groups=2).steps
    assert (into.name, into.weight_shape, into.groups) == ("pointwise_in", (8, 3, 1, 1), 2)
    assert (depthwise.name, depthwise.weight_shape, depthwise.groups) == ("depthwise", (8, 1, 3, 5), 8)
    assert (out.name, out.weight_shape, out.groups) == ("pointwise_out", (8, 4, 1, 1), 2)


def test_a_start_for_a_fit_is_near_the_answer_and_exact_at_full_rank():
    weight, form = random_weight(12, 8, 3, 3, seed=1), FORMS["cp"]
    start_at, start = form.starts(weight, 1), 0.0
    for rank in (6, 20, 72):
        groups = [step.groups for step in form.steps(shape_of(weight.shape), rank)]
        final = energy_kept(weight, compose(form.factor(weight, 1, rank), groups))
        start = energy_kept(weight, compose(start_at(rank), groups))
        assert final - 0.1 <= start <= final + 0.01
    assert start == pytest.approx(1, abs=1e-12)
