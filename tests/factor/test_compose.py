"""The dense kernel of a chain, against convolving with the chain step by step."""

import numpy as np
import oracle
import pytest
import torch

from sepwise.errors import ShapeError
from sepwise.factor import compose


def random_weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("shapes", "groups"),
    [
        ([(6, 2, 3, 3), (4, 6, 1, 1)], [2, 1]),
        ([(6, 4, 1, 1), (6, 2, 3, 3)], [1, 3]),
        ([(6, 2, 3, 1), (8, 3, 1, 2)], [2, 2]),
        ([(4, 1, 3), (8, 1, 1), (6, 4, 1)], [4, 4, 2]),
        ([(6, 3, 1, 1, 1), (4, 3, 2, 3, 1), (4, 4, 1, 1, 4)], [2, 2, 1]),
    ],
)
def test_one_convolution_for_many(shapes, groups):
    weights = [random_weight(*shape, seed=n) for n, shape in enumerate(shapes)]
    dense = compose(weights, groups)
    x = random_weight(2, shapes[0][1] * groups[0], *(k + 2 for k in dense.shape[2:]), seed=9).numpy()
    y = x
    for weight, g in zip(weights, groups, strict=True):
        y = oracle.convolution(y, weight, groups=g)
    expected = oracle.convolution(x, dense, groups=x.shape[1] // dense.shape[1])
    np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-11)


def test_gradients_flow_through():
    weights = [random_weight(4, 1, 3, 3).requires_grad_(), random_weight(2, 4, 1, 1, seed=1).requires_grad_()]
    assert torch.autograd.gradcheck(lambda *w: compose(w, [4, 1]), weights)


def test_two_kernels_along_one_axis():
    with pytest.raises(ShapeError, match=r"both steps have a kernel along axis 1: \(4, 1, 3, 3\), \(2, 4, 1, 3\)"):
        compose([torch.ones(4, 1, 3, 3), torch.ones(2, 4, 1, 3)], [4, 1])


def test_groups_that_do_not_nest():
    with pytest.raises(ShapeError, match="groups 2 and 3 of two steps must divide one another"):
        compose([torch.ones(6, 1, 3), torch.ones(6, 2, 1)], [2, 3])
