"""Correlation of pixels and channels: against NumPy pair by pair, where the answer is known, and as it must fail."""

import numpy as np
import pytest
import torch
from small_networks import classifier
from torch import nn

from sepwise.errors import ModelError, ShapeError
from sepwise.measure.correlation import AXES, correlation, correlations


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def smooth(*shape: int, seed: int = 0) -> torch.Tensor:
    """Noise averaged over 3 x 3 pixels: r = 2/3 at distance 1, 1/3 at 2, 0 beyond."""
    n, c, h, w = shape
    return nn.functional.avg_pool2d(noise(n, c, h + 2, w + 2, seed=seed), 3, stride=1)


def test_every_number_is_that_of_numpy():
    x = smooth(3, 4, 9, 7) + 5.0
    x[:, 1] += 0.5 * x[:, 0]
    found, y = correlation([x[:2], x[2:]], distances=(1, 3, 8)), x.double().numpy()
    for axis, name in ((2, "vertical"), (3, "horizontal")):
        for distance in (d for d in (1, 3, 8) if d < y.shape[axis]):
            here, there = (
                np.take(y, range(*r), axis) for r in ((0, y.shape[axis] - distance), (distance, y.shape[axis]))
            )
            pairs = [(here[:, c].ravel(), there[:, c].ravel()) for c in range(4)]
            each = [np.corrcoef(*pair)[0, 1] for pair in pairs]
            assert found.spatial[name][distance] == pytest.approx(np.mean(each), abs=1e-9)
            sizes = [np.std(a) * np.std(b) for a, b in pairs]
            assert found.weighted[name][distance] == pytest.approx(np.average(each, weights=sizes), abs=1e-9)
    assert set(found.spatial["horizontal"]) == {1, 3}  # seven pixels wide: no pairs at 8
    rows = y.transpose(1, 0, 2, 3).reshape(4, -1)
    off = ~np.eye(4, dtype=bool)
    assert found.across == pytest.approx(np.abs(np.corrcoef(rows))[off].mean(), abs=1e-9)
    following = np.roll(y, 1, axis=0).transpose(1, 0, 2, 3).reshape(4, -1)
    assert found.chance == pytest.approx(np.abs(np.corrcoef(following, rows)[:4, 4:])[off].mean(), abs=1e-9)
    values = np.linalg.eigvalsh(np.cov(rows))
    assert found.dimensions == pytest.approx(values.sum() ** 2 / (values**2).sum(), abs=1e-9)


def test_batches_count_as_one():
    x = smooth(6, 3, 8, 8)
    whole, parts = correlation([x]), correlation([x[:1], x[1:4], x[4:]])
    assert whole.chance == pytest.approx(parts.chance)
    assert whole.at(2) == pytest.approx(parts.at(2))
    assert whole.across == pytest.approx(parts.across)
    assert whole.across != pytest.approx(correlation([x[:4]]).across)


def test_noise_is_independent_up_to_chance():
    found = correlation([noise(8, 16, 32, 32)])
    expected = (2 / np.pi / (8 * 32 * 32)) ** 0.5  # mean |r| of independent normal numbers
    assert found.across == pytest.approx(expected, rel=0.15)
    assert found.chance == pytest.approx(expected, rel=0.15)
    assert found.dimensions == pytest.approx(16, rel=0.01)
    assert [found.at(d) for d in (1, 2, 3, 4, 8)] == pytest.approx([0] * 5, abs=0.01)


def test_smooth_channels_look_correlated_by_chance():
    found = correlation([smooth(8, 16, 32, 32)])
    assert [found.at(d) for d in (1, 2, 3)] == pytest.approx([2 / 3, 1 / 3, 0], abs=0.03)
    plain = (2 / np.pi / (8 * 32 * 32)) ** 0.5
    assert found.across == pytest.approx(found.chance, rel=0.2)
    assert found.chance > 1.5 * plain


def test_one_picture_behind_all_channels():
    found = correlation([smooth(4, 1, 16, 16) * torch.tensor([1.0, -2.0, 3.0]).view(1, 3, 1, 1)])
    assert (found.across, found.dimensions) == pytest.approx((1, 1))
    assert found.chance == pytest.approx(0.1, abs=0.1)


def test_channels_that_do_not_vary_count_nowhere():
    x = noise(4, 3, 8, 8)
    dead = torch.cat([x, torch.full((4, 1, 8, 8), 7.0)], dim=1)
    found, alive = correlation([dead]), correlation([x])
    assert (found.channels, found.varying, alive.varying) == (4, 3, 3)
    assert (found.across, found.at(1), found.dimensions) == pytest.approx((alive.across, alive.at(1), alive.dimensions))
    nothing = correlation([torch.ones(2, 3, 4, 4)])
    assert (nothing.varying, nothing.across, nothing.chance, nothing.dimensions, nothing.at(1)) == (0, *[None] * 4)


def test_what_cannot_be_told_is_none():
    assert correlation([noise(1, 3, 8, 8)]).chance is None
    assert correlation([noise(4, 1, 8, 8)]).across is None
    assert correlation([noise(4, 2, 1, 1)]).at(1) is None


def test_refusals():
    with pytest.raises(ShapeError, match=r"maps \(2, 3, 4\) are not \(N, C, H, W\)"):
        correlation([torch.ones(2, 3, 4)])
    with pytest.raises(ShapeError, match=r"are not \(N, 3, H, W\), or hold NaN"):
        correlation([noise(1, 3, 4, 4), noise(1, 2, 4, 4)])
    with pytest.raises(ShapeError, match="hold NaN or Inf"):
        correlation([torch.full((1, 1, 2, 2), float("nan"))])
    with pytest.raises(ShapeError, match="expected one size"):
        correlation([noise(1, 3, 4, 4), noise(1, 3, 5, 5)])
    with pytest.raises(ShapeError, match="no maps"):
        correlation([])
    with pytest.raises(ModelError, match="cannot run on these pictures"):
        correlations(nn.Conv2d(4, 2, 3), [noise(1, 3, 8, 8)])


def test_every_convolution_of_a_network_is_seen_and_nothing_stays_behind():
    model = classifier().train()
    x = noise(4, 3, 24, 24)
    found = correlations(model, [x[:3], x[3:]])
    assert {name: each.channels for name, each in found.items()} == {"first": 3, "second": 12, "third": 24, "point": 24}
    assert found["first"].at(1) == pytest.approx(correlation([x]).at(1))
    assert model.training
    assert not any(m._forward_pre_hooks for m in model.modules())
    told = found["first"].to_dict()
    assert set(told["spatial"]) == set(AXES)
    assert told["spatial"]["vertical"]["1"] == found["first"].spatial["vertical"][1]
