"""depthwise -> pointwise: the energy is the singular-value formula for each input channel."""

import numpy as np
import pytest
import torch

from sepwise.factor import factorize


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_energy_is_that_of_the_singular_values(groups, rank):
    weight = torch.randn(6, 4 // groups, 3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    out = 6 // groups
    kept = 0.0
    for channel in range(4):
        group, inside = divmod(channel, 4 // groups)
        matrix = weight[group * out : (group + 1) * out, inside].reshape(out, 9).numpy()
        kept += (np.linalg.svd(matrix, compute_uv=False)[:rank] ** 2).sum()
    factors = factorize(weight, "depthwise", rank, groups=groups)
    assert factors.energy_kept == pytest.approx(kept / float(weight.square().sum()), abs=1e-12)


def test_a_depthwise_separable_kernel_is_found_at_rank_one():
    depthwise, pointwise = torch.randn(5, 1, 3, 3), torch.randn(7, 5, 1, 1)
    dense = pointwise * depthwise.transpose(0, 1)
    assert factorize(dense.double(), "depthwise", 1).energy_kept == pytest.approx(1, abs=1e-12)
    assert factorize(dense.double(), "blueprint", 1).energy_kept < 0.999  # the other order is another set of kernels


def test_steps():
    depthwise, pointwise = factorize(torch.randn(8, 3, 3, 5), "depthwise", 2, groups=2).steps
    assert (depthwise.name, depthwise.weight_shape, depthwise.groups) == ("depthwise", (12, 1, 3, 5), 6)
    assert (pointwise.name, pointwise.weight_shape, pointwise.groups) == ("pointwise", (8, 6, 1, 1), 2)
