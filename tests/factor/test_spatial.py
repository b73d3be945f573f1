"""N x 1 -> 1 x N: the energy is the singular-value formula for each group, or depthwise kernel."""

import numpy as np
import pytest
import torch

from sepwise.factor import FORMS, factorize
from sepwise.geometry import ConvShape, Geometry


def unfolded(block: torch.Tensor) -> np.ndarray:
    """(in * rows, out * columns), entry by entry."""
    out, into, rows, columns = block.shape
    matrix = np.zeros((into * rows, out * columns))
    for o, i, u, v in np.ndindex(out, into, rows, columns):
        matrix[i * rows + u, o * columns + v] = block[o, i, u, v]
    return matrix


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("rank", [1, 4])
def test_energy_is_that_of_the_singular_values(groups, rank):
    weight = torch.randn(6, 4 // groups, 3, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    spectra = [np.linalg.svd(unfolded(block), compute_uv=False) for block in weight.chunk(groups)]
    kept = sum((values[:rank] ** 2).sum() for values in spectra)
    factors = factorize(weight, "spatial", rank, groups=groups)
    assert factors.energy_kept == pytest.approx(kept / float(weight.square().sum()), abs=1e-12)


def test_steps_keep_each_axis_with_its_own_stride_padding_and_dilation():
    conv = ConvShape(6, 8, Geometry.of((3, 5), stride=(2, 3), padding=[(1, 2), (0, 4)], dilation=(1, 2)), groups=2)
    vertical, horizontal = FORMS["spatial"].steps(conv, 3)
    assert (vertical.name, vertical.weight_shape, vertical.groups) == ("vertical", (6, 3, 3, 1), 2)
    assert vertical.geometry == Geometry.of((3, 1), stride=(2, 1), padding=[(1, 2), (0, 0)])
    assert (horizontal.name, horizontal.weight_shape, horizontal.groups) == ("horizontal", (8, 3, 1, 5), 2)
    assert horizontal.geometry == Geometry.of((1, 5), stride=(1, 3), padding=[(0, 0), (0, 4)], dilation=(1, 2))


def test_three_axes_are_the_first_two_and_then_the_last():
    vertical, horizontal = FORMS["spatial"].steps(ConvShape(2, 4, Geometry.of((3, 5, 7))), 6)
    assert (vertical.weight_shape, horizontal.weight_shape) == ((6, 2, 3, 5, 1), (4, 6, 1, 1, 7))


def test_depthwise_kernels_split_into_seven_by_one_and_one_by_seven():
    kernels = torch.randn(5, 1, 7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    factors = factorize(kernels, "spatial", 2, groups=5)
    assert [tuple(w.shape) for w in factors.weights] == [(10, 1, 7, 1), (5, 2, 1, 7)]
    kept = sum((np.linalg.svd(k.numpy(), compute_uv=False)[:2] ** 2).sum() for k in kernels[:, 0])
    assert factors.energy_kept == pytest.approx(kept / float(kernels.square().sum()), abs=1e-12)


def test_sobel_separates_and_a_diagonal_does_not():
    sobel = torch.tensor([[[[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]]], dtype=torch.float64)
    assert factorize(sobel, "spatial", 1).energy_kept == pytest.approx(1, abs=1e-14)
    assert factorize(torch.eye(3, dtype=torch.float64)[None, None], "spatial", 1).energy_kept == pytest.approx(1 / 3)


def test_a_kernel_with_one_axis_is_refused():
    assert FORMS["spatial"].why_not(ConvShape(1, 1, Geometry.of((3,)))) == (
        "a kernel (3,) has one spatial axis; to separate space it takes two or three"
    )


def test_large_layers_go_through_their_gram_matrix_without_loss():
    weight = torch.randn(128, 96, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.linalg.svdvals(weight.permute(1, 2, 0, 3).reshape(288, 384))
    kept = float(values[:100].square().sum() / values.square().sum())
    assert factorize(weight, "spatial", 100).energy_kept == pytest.approx(kept, abs=1e-12)
    torch.testing.assert_close(factorize(weight, "spatial").dense_weight(), weight, rtol=1e-10, atol=1e-10)
