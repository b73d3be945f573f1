"""Intervals cover what they say they cover, tests find what is there and not what is not."""

import numpy as np
import pytest
from scipy import stats

from sepwise.errors import SepwiseError
from sepwise.lab import verdict


def draws(count: int, n: int, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1.0, (count, n))


def covered(intervals, truth: float) -> float:
    return float(np.mean([i.low <= truth <= i.high for i in intervals]))


def test_a_mean_is_covered_as_often_as_it_says():
    found = [verdict.mean_of(values) for values in draws(600, 5, mean=3.0)]
    assert 0.93 <= covered(found, 3.0) <= 0.97
    assert covered(found, 4.0) < 0.8
    reference = stats.ttest_1samp(draws(1, 5)[0], 0).confidence_interval(0.95)
    mine = verdict.mean_of(draws(1, 5)[0])
    assert (mine.low, mine.high) == pytest.approx((reference.low, reference.high))
    assert mine.error == pytest.approx(stats.sem(draws(1, 5)[0]))


def test_the_bootstrap_covers_the_mean_of_a_skewed_distribution():
    random = np.random.default_rng(1)
    found = [verdict.bootstrap_of(random.exponential(1.0, 30)) for _ in range(100)]
    assert covered(found, 1.0) >= 0.86
    assert covered(found, 2.0) < 0.3
    assert verdict.bootstrap_of([2.0, 2.0, 2.0]).high == 2.0


def test_the_noise_floor_is_what_equal_arms_show():
    values, others = draws(2, 4000)
    floor = verdict.noise_floor(values)
    assert floor.mean == pytest.approx(2 / np.pi**0.5, abs=0.05)
    assert floor.low < floor.mean < floor.high
    assert floor.mean == pytest.approx(np.abs(values - others).mean(), abs=0.05)
    pairs = [abs(a - b) for i, a in enumerate(values[:20]) for b in values[:i]]
    assert verdict.noise_floor(values[:20]).mean == pytest.approx(np.mean(pairs))


def test_equivalence_is_shown_for_equal_arms_and_not_for_different_or_few_ones():
    a, noise = draws(2, 30)
    assert verdict.equivalent(a, a + 0.1 * noise, margin=0.2) < 0.01
    assert verdict.equivalent(a, a + 0.1 * noise + 0.3, margin=0.2) > 0.5
    assert verdict.equivalent(a[:3], a[:3] + noise[:3], margin=0.2) > 0.05
    assert verdict.equivalent(a, a, margin=0.1) == 0.0
    assert verdict.equivalent(a, a + 1.0, margin=0.1) == 1.0


def test_the_error_of_showing_equivalence_at_the_margin_is_five_percent():
    shown = [verdict.equivalent(values, np.zeros(10), margin=1.0) < 0.05 for values in draws(2000, 10, mean=1.0)]
    assert 0.035 <= np.mean(shown) <= 0.065


def test_differences_are_found_with_few_false_ones():
    a, noise = draws(2, 20)
    found = verdict.differ({"same": (a, a + noise), "other": (a, a + 0.1 * noise + 1.0), "equal": (a, a)})
    assert found == {"same": False, "other": True, "equal": False}
    nothing = np.random.default_rng(2).normal(0, 1, (25, 4, 10))
    families = [
        any(verdict.differ({str(i): (v, np.zeros(10)) for i, v in enumerate(arms)}).values()) for arms in nothing
    ]
    assert np.mean(families) <= 0.16


def test_the_smallest_difference_is_seen_four_times_in_five():
    gaps = draws(1, 12)[0]
    size = verdict.smallest_seen(gaps, np.zeros(12)) / gaps.std(ddof=1)
    values = draws(3000, 12, mean=size)
    t = values.mean(1) / (values.std(1, ddof=1) / 12**0.5)
    seen = np.abs(t) > stats.t.ppf(0.975, 11)
    assert 0.77 <= np.mean(seen) <= 0.83
    assert abs(verdict.seeds_for(size, 1.0) - 12) <= 1
    assert verdict.seeds_for(1.0, 0.0) == 2


def test_rank_correlation():
    random = np.random.default_rng(0)
    x = random.normal(size=40)
    same = verdict.rank_correlation(x, np.exp(x))
    assert same.mean == pytest.approx(1.0)
    assert same.low > 0.99
    apart = verdict.rank_correlation(x, random.normal(size=40))
    assert apart.low < 0 < apart.high


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")]])
def test_too_few_values_are_refused(values):
    with pytest.raises(SepwiseError, match="finite values expected, at least 2"):
        verdict.mean_of(values)
