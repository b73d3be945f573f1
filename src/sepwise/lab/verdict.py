"""What repeated trials can say: means with intervals, paired differences, equivalence, and what could not be seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import SepwiseError
from ..extras import require
from .ledger import FAILS, HOLDS, NOT_SHOWN

Values = Sequence[float] | np.ndarray

LEVEL = 0.95
RESAMPLES = 9999


@dataclass(frozen=True)
class Interval:
    """A mean of n values, their standard deviation (n - 1), and where the mean lies with a confidence of 95 %."""

    mean: float
    low: float
    high: float
    n: int
    deviation: float

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.deviation / self.n**0.5

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"

    def shown(self) -> dict[str, float]:
        return {"mean": self.mean, "low": self.low, "high": self.high}


def mean_of(values: Values) -> Interval:
    """By Student's t: right for values that are normal, near enough for means of ten and more.

    >>> print(mean_of([1.0, 2.0, 3.0]))
    2.00 (-0.48 to 4.48)
    """
    numbers = _at_least(values, 2)
    scipy: Any = require("scipy.stats", "intervals")
    error = numbers.std(ddof=1) / len(numbers) ** 0.5
    reach = float(scipy.t.ppf(0.5 + LEVEL / 2, len(numbers) - 1) * error)
    return _interval(numbers, float(numbers.mean()) - reach, float(numbers.mean()) + reach)


def ratio_of(values: Values) -> Interval:
    """Geometric mean of ratios: `mean_of` their logarithms, turned back; `deviation` is that of the logarithms.

    >>> print(ratio_of([0.5, 2.0, 1.0, 1.0]))
    1.00 (0.41 to 2.46)
    """
    found = mean_of(np.log(_at_least(values, 2)))
    mean, low, high = np.exp([found.mean, found.low, found.high])
    return Interval(float(mean), float(low), float(high), found.n, found.deviation)


def bootstrap_of(values: Values, statistic: Callable[..., Any] = np.mean) -> Interval:
    """By resampling (bias-corrected and accelerated): right for values of any distribution, too narrow below ten."""
    numbers = _at_least(values, 2)
    if np.ptp(numbers) == 0:
        return _interval(numbers, float(numbers[0]), float(numbers[0]))
    scipy: Any = require("scipy.stats", "intervals")
    found = scipy.bootstrap(
        (numbers,), statistic, n_resamples=RESAMPLES, confidence_level=LEVEL, rng=np.random.default_rng(0)
    ).confidence_interval
    return _interval(numbers, float(found.low), float(found.high))


def share_of(each: Sequence[bool]) -> Interval:
    """In what share of cases something is so: Wilson's interval, which is no point where it is so in all of them.

    >>> print(share_of([True] * 10))
    1.00 (0.72 to 1.00)
    """
    cases = _at_least(each, 2)
    proportion: Any = require("statsmodels.stats.proportion", "intervals")
    low, high = proportion.proportion_confint(int(cases.sum()), len(cases), alpha=1 - LEVEL, method="wilson")
    return _interval(cases, float(low), float(high))


def in_most(each: Sequence[bool], least: int = 8) -> tuple[str, Interval | None]:
    """Whether something is so in most cases: "holds" or "does not hold" where the interval of its share lies above or
    below one half; "not shown" between, and for fewer than `least` cases.

    >>> verdict, share = in_most([True] * 9 + [False])
    >>> verdict, round(share.low, 2)
    ('holds', 0.6)
    """
    if len(each) < least:
        return NOT_SHOWN, None
    share = share_of(each)
    return HOLDS if share.low > 0.5 else FAILS if share.high < 0.5 else NOT_SHOWN, share


def difference(of: Values, to: Values) -> Interval:
    """Mean of `of - to`, paired: the same seed at the same place in both."""
    return mean_of(np.asarray(of) - np.asarray(to))


def equivalent(of: Values, to: Values, margin: float) -> float:
    """p of two one-sided paired tests: below 0.05, the mean difference is shown to lie within ± margin.

    Schuirmann 1987; Lakens 2017.
    """
    weights: Any = require("statsmodels.stats.weightstats", "testing equivalence")
    gaps = _at_least(np.asarray(of) - np.asarray(to), 2)
    if np.ptp(gaps) == 0:
        return 0.0 if abs(gaps[0]) < margin else 1.0
    return float(weights.DescrStatsW(gaps).ttost_mean(-margin, margin)[0])


def differ(pairs: Mapping[str, tuple[Values, Values]]) -> dict[str, bool]:
    """For each name whether its two arms differ: paired t, 5 % over all names together (Holm 1979)."""
    scipy: Any = require("scipy.stats", "testing differences")
    many: Any = require("statsmodels.stats.multitest", "testing differences")
    ps = []
    for of, to in pairs.values():
        gaps = _at_least(np.asarray(of) - np.asarray(to), 2)
        ps.append(float(scipy.ttest_1samp(gaps, 0.0).pvalue) if np.ptp(gaps) else float(gaps[0] == 0))
    return dict(zip(pairs, map(bool, many.multipletests(ps, 1 - LEVEL, method="holm")[0]), strict=True))


def absolute_difference(of: Values, to: Values) -> Interval:
    """Mean of |of - to|, seed by seed."""
    return bootstrap_of(np.abs(np.asarray(of) - np.asarray(to)))


def noise_floor(values: Values) -> Interval:
    """Mean of |a - b| over all pairs of different seeds of one arm: what `absolute_difference` says of equal things.

    The interval resamples seeds. For normal values it is 2 / sqrt(pi) = 1.13 standard deviations.
    """
    numbers = _at_least(values, 3)

    def between_pairs(sample: Any, axis: int = -1) -> Any:
        ordered = np.sort(np.asarray(sample), axis=axis)  # sum of |a - b| over pairs = sum of (2 i - n + 1) x_(i)
        n = ordered.shape[axis]
        weights = 2 * np.arange(n) - n + 1
        return (ordered * weights).sum(axis) / (n * (n - 1) / 2)

    found = bootstrap_of(numbers, between_pairs)
    return Interval(float(between_pairs(numbers)), found.low, found.high, found.n, found.deviation)


def smallest_seen(of: Values, to: Values, power: float = 0.8) -> float:
    """The smallest mean difference that these seeds would have shown with this probability (paired t, two-sided)."""
    test: Any = require("statsmodels.stats.power", "power").TTestPower()
    gaps = _at_least(np.asarray(of) - np.asarray(to), 3)
    return float(test.solve_power(nobs=len(gaps), alpha=1 - LEVEL, power=power)) * float(gaps.std(ddof=1))


def seeds_for(gap: float, deviation: float, power: float = 0.8) -> int:
    """How many seeds would show a mean difference `gap` with this probability, when differences vary by `deviation`."""
    test: Any = require("statsmodels.stats.power", "power").TTestPower()
    if deviation == 0:
        return 2
    return int(np.ceil(test.solve_power(effect_size=abs(gap) / deviation, alpha=1 - LEVEL, power=power)))


def rank_correlation(x: Values, y: Values) -> Interval:
    """Spearman's, with an interval from resampling the pairs; n is the number of pairs."""
    scipy: Any = require("scipy.stats", "rank correlation")
    pairs = np.stack([_at_least(x, 4), _at_least(y, 4)])
    rows = np.random.default_rng(0).integers(0, pairs.shape[1], (2000, pairs.shape[1]))
    ranks = scipy.rankdata(pairs[:, rows], axis=-1)  # (2, resamples, n): all at once, a call for each takes a second
    off = ranks - ranks.mean(-1, keepdims=True)
    products, (one, other) = (off[0] * off[1]).sum(-1), (off**2).sum(-1)
    drawn = [p / (a * b) ** 0.5 for p, a, b in zip(products, one, other, strict=True) if a and b]
    low, high = np.quantile(drawn, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    found = float(scipy.spearmanr(*pairs).statistic)
    return Interval(found, float(low), float(high), pairs.shape[1], float(np.std(drawn)))


def _interval(numbers: Any, low: float, high: float) -> Interval:
    return Interval(float(numbers.mean()), low, high, len(numbers), float(numbers.std(ddof=1)))


def _at_least(values: Any, least: int) -> Any:
    numbers = np.asarray(values, dtype=float)
    if len(numbers) < least or not np.isfinite(numbers).all():
        raise SepwiseError(f"{len(numbers)} finite values expected, at least {least}: {numbers.tolist()[:10]}")
    return numbers
