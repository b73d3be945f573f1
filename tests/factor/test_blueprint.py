"""pointwise -> depthwise: the energy is the singular-value formula for each output channel; stride comes second."""

import numpy as np
import pytest
import torch

from sepwise.factor import FORMS, factorize
from sepwise.geometry import ConvShape, Geometry, chain_macs


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("rank", [1, 2])
def test_energy_is_that_of_the_singular_values(groups, rank):
    weight = torch.randn(6, 8 // groups, 3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    kept = sum(
        (np.linalg.svd(weight[o].reshape(8 // groups, 9).numpy(), compute_uv=False)[:rank] ** 2).sum() for o in range(6)
    )
    factors = factorize(weight, "blueprint", rank, groups=groups)
    assert factors.energy_kept == pytest.approx(kept / float(weight.square().sum()), abs=1e-12)


def test_one_blueprint_for_each_output_is_found_at_rank_one():
    blueprints, scales = torch.randn(7, 1, 3, 3), torch.randn(7, 5, 1, 1)
    dense = (blueprints * scales).double()
    assert factorize(dense, "blueprint", 1).energy_kept == pytest.approx(1, abs=1e-12)
    assert factorize(dense, "depthwise", 1).energy_kept < 0.999


def test_steps():
    pointwise, depthwise = factorize(torch.randn(8, 3, 3, 5), "blueprint", 2, groups=2).steps
    assert (pointwise.name, pointwise.weight_shape, pointwise.groups) == ("pointwise", (16, 3, 1, 1), 2)
    assert (depthwise.name, depthwise.weight_shape, depthwise.groups) == ("depthwise", (8, 2, 3, 5), 8)


def test_the_pointwise_step_pays_for_the_size_before_the_stride():
    conv = ConvShape(16, 32, Geometry.of((3, 3), stride=2, padding=1))
    blueprint, depthwise = FORMS["blueprint"].steps(conv, 1), FORMS["depthwise"].steps(conv, 1)
    assert blueprint[0].macs((32, 32)) == 16 * 32 * 32 * 32
    assert depthwise[1].macs((16, 16)) == 16 * 32 * 16 * 16
    assert chain_macs(blueprint, (32, 32)) == 16 * 32 * 32 * 32 + 32 * 9 * 16 * 16
