"""How separable kernels are: closed curves against factors, claims of the article about single matrices."""

import numpy as np
import pytest
import torch

from sepwise.errors import ShapeError, UnsupportedError
from sepwise.factor import FORMS, factorize, shape_of
from sepwise.measure.separability import (
    cross_kernel,
    energy_curve,
    intra_kernel,
    rank_one_loss,
    rank_one_share,
    separate_matrix,
    spatial_rank,
)


def random_weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("form", ["depthwise", "blueprint", "spatial", "spatial_reversed"])
@pytest.mark.parametrize(("shape", "groups"), [((6, 4, 3, 3), 1), ((6, 2, 3, 2), 2), ((4, 1, 2, 3, 3), 4)])
def test_the_curve_is_the_energy_of_the_factors(form, shape, groups):
    weight = random_weight(*shape)
    curve = energy_curve(weight, form, groups)
    assert len(curve) == FORMS[form].full_rank(shape_of(shape, groups))
    expected = [factorize(weight, form, rank, groups=groups).energy_kept for rank in range(1, len(curve) + 1)]
    assert curve == pytest.approx(expected, abs=1e-12)
    assert energy_curve(weight, form, groups, ranks=[1, len(curve)]) == [curve[0], curve[-1]]


def test_the_curve_of_a_large_layer_goes_through_the_gram_matrix():
    weight = random_weight(90, 96, 3, 3)
    values = torch.linalg.svdvals(weight.permute(1, 2, 0, 3).reshape(288, 270)).square()
    expected = (values.cumsum(0) / values.sum()).tolist()
    assert energy_curve(weight, "spatial") == pytest.approx(expected, abs=1e-12)


def test_forms_without_a_closed_curve_need_their_ranks():
    weight = random_weight(4, 3, 3)
    for form, ranks in (("cp", (1, 9)), ("tucker", ((1, 2), 3))):
        assert energy_curve(weight, form, ranks=ranks) == [factorize(weight, form, r).energy_kept for r in ranks]
        with pytest.raises(UnsupportedError, match=f"energy_curve: {form} has no closed form; name the ranks"):
            energy_curve(weight, form)


def test_refusals():
    with pytest.raises(UnsupportedError, match=r"energy_curve: spatial: a kernel \(3,\) has one spatial axis"):
        energy_curve(torch.ones(2, 2, 3), "spatial")
    with pytest.raises(ShapeError, match="expected an integer from 1 to 6"):
        energy_curve(random_weight(6, 4, 3, 3), ranks=[7])
    with pytest.raises(
        ShapeError, match=r"spatial_rank: the kernels of \(2, 2, 3\) have one axis; expected two or three"
    ):
        spatial_rank(torch.ones(2, 2, 3))
    for number in (energy_curve, spatial_rank, rank_one_loss, intra_kernel, cross_kernel):
        with pytest.raises(ShapeError, match="must hold finite floating-point numbers"):
            number(torch.full((2, 2, 3, 3), float("nan")))


def test_zeros():
    zeros = torch.zeros(2, 3, 3, 3)
    assert energy_curve(zeros, "depthwise") == [1.0, 1.0]
    assert spatial_rank(zeros).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert rank_one_loss(zeros).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert rank_one_share(zeros) == 1
    assert intra_kernel(zeros).tolist() == [1.0, 1.0]


def test_spatial_rank_counts_what_a_tolerance_leaves():
    kernel = torch.diag(torch.tensor([10.0, 1.0, 0.1])).expand(2, 1, 3, 3)
    # energies 100, 1, 0.01 of 101.01: rank 1 loses 0.99990 %, rank 2 loses 0.0099 %
    for tolerance, rank in ((0.02, 1), (0.00999, 2), (1e-5, 3)):
        assert spatial_rank(kernel, tolerance).tolist() == [[rank], [rank]]
    assert rank_one_loss(kernel).tolist() == [[pytest.approx(1.01 / 101.01)]] * 2
    assert rank_one_share(kernel, 0.02) == 1
    assert rank_one_share(kernel, 0.00999) == 0


def test_a_kernel_of_one_row_loses_nothing():
    assert rank_one_loss(random_weight(2, 3, 1, 5)).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_spatial_rank_in_three_dimensions_sets_the_last_axis_apart():
    kernel = torch.einsum("uv,w->uvw", random_weight(3, 3), random_weight(4, seed=1))
    assert spatial_rank(kernel[None, None]).tolist() == [[1]]
    assert spatial_rank(kernel.permute(2, 0, 1)[None, None], 1e-9).tolist() == [[3]]


def test_most_random_kernels_do_not_separate_but_every_outer_product_does():
    weight = random_weight(40, 40, 3, 3)
    assert rank_one_share(weight) < 0.05
    assert rank_one_share(random_weight(40, 40, 3, 1) * random_weight(40, 40, 1, 3, seed=1)) == 1


@pytest.mark.parametrize("groups", [1, 2])
def test_first_components_by_hand(groups):
    weight = random_weight(6, 4 // groups, 3, 3)
    intra = [share(weight[o].flatten(1)) for o in range(6)]
    blocks = weight.chunk(groups)
    cross = [share(block[:, i].flatten(1)) for block in blocks for i in range(block.shape[1])]
    assert intra_kernel(weight, groups).tolist() == pytest.approx(intra, abs=1e-12)
    assert cross_kernel(weight, groups).tolist() == pytest.approx(cross, abs=1e-12)


def share(matrix: torch.Tensor) -> float:
    values = np.linalg.svd(matrix.numpy(), compute_uv=False) ** 2
    return values[0] / values.sum()


@pytest.mark.parametrize(
    ("matrix", "column", "row"),
    [
        ([[3, 6, 9], [4, 8, 12], [5, 10, 15]], (3, 4, 5), (1, 2, 3)),  # the article's example
        ([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], (1, 2, 1), (-1, 0, 1)),  # Sobel
        ([[1, 2, 1], [2, 4, 2], [1, 2, 1]], (1, 2, 1), (1, 2, 1)),
        ([[0.0625, 0.125, 0.0625], [0.125, 0.25, 0.125]], (0.0625, 0.125), (1, 2, 1)),
        ([[0.1, 0.3], [0.2, 0.6]], (0.1, 0.2), (1, 3)),  # as written, though not as binary fractions
        ([[0, 0], [0, 0], [2, 4]], (0, 0, 2), (1, 2)),
        ([[0, 0], [0, 0]], (0, 0), (0, 0)),
        ([[1, 2, 3, 4]], (1,), (1, 2, 3, 4)),
        ([[np.float64(2.0)], [3.0]], (2, 3), (1,)),
    ],
)
def test_matrices_that_separate(matrix, column, row):
    found = separate_matrix(matrix)
    assert (found.column, found.row, found.error, found.exact) == (column, row, 0.0, True)
    assert all(isinstance(entry, int) for entry in found.row)
    np.testing.assert_allclose(np.outer(found.column, found.row), matrix, rtol=1e-15)


@pytest.mark.parametrize(
    "matrix", [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 1, 0], [1, -4, 1], [0, 1, 0]], [[1, 2], [3, 4]]]
)
def test_the_nearest_matrix_that_does(matrix):
    found = separate_matrix(matrix)
    values = np.linalg.svd(np.array(matrix, float), compute_uv=False)
    assert not found.exact
    assert found.error == pytest.approx(np.sqrt((values[1:] ** 2).sum() / (values**2).sum()))
    product = np.outer(found.column, found.row)
    assert np.linalg.norm(product - matrix) / np.linalg.norm(matrix) == pytest.approx(found.error)
    assert max(found.row, key=abs) == pytest.approx(1)


@pytest.mark.parametrize("matrix", [[], [[]], [[1, 2], [3]], [[1, float("nan")]], [["1", 2]], [1, 2], "12"])
def test_matrices_that_are_none(matrix):
    with pytest.raises(ShapeError, match="separate_matrix: expected rows of finite numbers, all of one length; got"):
        separate_matrix(matrix)
