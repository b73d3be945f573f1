"""What `Factors` says about itself, and the depthwise form as a sum of pairs."""

import pytest
import torch

from sepwise import factorize
from sepwise.errors import UnsupportedError
from sepwise.factor import FORMS, energy_kept


def random_weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("shape", "groups"), [((6, 4, 3, 3), 1), ((6, 2, 3, 3), 2), ((8, 3, 5), 1), ((6, 2, 2, 3, 2), 2)]
)
@pytest.mark.parametrize("rank", [1, 3])
def test_pairs_add_up_to_the_same_kernel(shape, groups, rank):
    weight = random_weight(*shape)
    factors = factorize(weight, "depthwise", rank, groups=groups)
    pairs = factors.pairs()
    assert len(pairs) == rank
    for pair in pairs:
        assert (pair.form, pair.rank, pair.groups) == ("depthwise", 1, groups)
        assert [tuple(w.shape) for w in pair.weights] == [step.weight_shape for step in pair.steps]
        assert all(w.is_contiguous() for w in pair.weights)
        assert pair.energy_kept == pytest.approx(energy_kept(weight, pair.dense_weight()), abs=1e-12)
    dense = torch.stack([pair.dense_weight() for pair in pairs]).sum(0)
    torch.testing.assert_close(dense, factors.dense_weight(), rtol=1e-14, atol=1e-14)
    assert sum(pair.energy_kept for pair in pairs) == pytest.approx(factors.energy_kept, abs=1e-12)
    assert sum(pair.parameters for pair in pairs) == factors.parameters


def test_pairs_come_largest_first():
    kept = [pair.energy_kept for pair in factorize(random_weight(6, 4, 3, 3)).pairs()]
    assert kept == sorted(kept, reverse=True)


def test_pairs_of_zeros():
    assert [pair.energy_kept for pair in factorize(torch.zeros(4, 2, 3, 3), rank=2).pairs()] == [1.0, 1.0]


@pytest.mark.parametrize("form", [form for form in FORMS if form != "depthwise"])
def test_only_the_depthwise_form_has_pairs(form):
    with pytest.raises(UnsupportedError, match=f"only the depthwise form is a sum of pairs, this is '{form}'$"):
        factorize(random_weight(6, 4, 3, 3), form).pairs()


def test_energy_kept():
    weight = torch.tensor([3.0, 4.0])
    assert energy_kept(weight, weight) == 1
    assert energy_kept(weight, torch.zeros(2)) == 0
    assert energy_kept(weight, -weight) == -3
    assert energy_kept(torch.zeros(2), torch.zeros(2)) == 1
    assert energy_kept(torch.zeros(2), weight) == float("-inf")
