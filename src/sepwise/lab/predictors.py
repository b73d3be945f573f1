"""What might tell, before a layer is converted and the network run, how much converting it will lose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..extras import require
from .verdict import Interval, rank_correlation

Row = Mapping[str, Any]
BEST = "best"  # of all forms
LEAST = 8  # layers of a network, below which it does not count


def at_share(row: Row, form: str, share: float, what: str) -> float | None:
    """A number of a layer's candidates at a share of its dense multiplications; None where the form has none there.

    form    a form, or "best": the smallest number that any form has
    what    "effect", "error", "energy" or "nearest"
    Ranks are whole, so few candidates cost just this: between the nearest two, logarithms are interpolated.
    """
    if form == BEST:
        found = [at_share(row, each, share, what) for each in sorted({c["form"] for c in row["candidates"]})]
        return min((v for v in found if v is not None), default=None)
    points = sorted((c["share"], c[what]) for c in row["candidates"] if c["form"] == form and c[what] is not None)
    if not points or not points[0][0] <= share <= points[-1][0]:
        return None
    costs, values = np.log([p[0] for p in points]), np.log([max(p[1], 1e-12) for p in points])
    return float(np.exp(np.interp(np.log(share), costs, values)))


@dataclass(frozen=True)
class Predictor:
    """One number known of a layer.

    kind       "inputs": correlation of what the layer reads; "kernel": its weight; "size"; "fit": after fitting chains
    expects    -1: the claim expects less loss where it is larger; +1: more; 0: it says nothing
    of         (layer, form, share) -> the number, or None
    """

    name: str
    kind: str
    expects: int
    of: Callable[[Row, str, float], float | None]


def _plain(name: str) -> Callable[[Row, str, float], float | None]:
    return lambda row, form, share: row[name]


def _fitted(name: str) -> Callable[[Row, str, float], float | None]:
    return lambda row, form, share: at_share(row, form, share, name)


def _felt_error(row: Row, form: str, share: float) -> float | None:
    error = at_share(row, form, share, "error")
    return None if error is None else error * row["felt"]


PREDICTORS = (
    Predictor("correlation of neighbours", "inputs", -1, _plain("neighbours")),
    Predictor("correlation of channels", "inputs", +1, _plain("across")),
    Predictor("dimensions per channel", "inputs", -1, _plain("dimensions_share")),
    Predictor("intra-kernel correlation", "kernel", -1, _plain("intra")),
    Predictor("energy lost, nearest weight", "kernel", +1, _fitted("nearest")),
    Predictor("energy lost, fitted weight", "fit", +1, _fitted("energy")),
    Predictor("mean square weight", "kernel", 0, _plain("weight")),
    Predictor("multiplications", "size", 0, _plain("macs")),
    Predictor("depth", "size", 0, _plain("place")),
    Predictor("error of the fit", "fit", 0, _fitted("error")),
    # Added after a first look, in ResNet-20 and EfficientNet, at what the error of the fit alone tells.
    Predictor("how much noise is felt", "fit", 0, _plain("felt")),
    Predictor("error of the fit × noise felt", "fit", 0, _felt_error),
)


@dataclass(frozen=True)
class Predicted:
    """How one predictor goes with a loss.

    pooled      Spearman's rank correlation over layers ranked inside their networks; None: too few layers
    p           of no correlation, adjusted for all predictors tried (Holm); None: too few layers
    networks    network -> the same inside it
    """

    predictor: Predictor
    pooled: Interval | None
    p: float | None
    networks: Mapping[str, float]

    @property
    def claimed(self) -> float:
        """The correlation, positive in the direction that the claim expects; 0 when it expects none or is unknown."""
        return self.predictor.expects * self.pooled.mean if self.pooled else 0.0


def predicted(networks: Mapping[str, Sequence[Row]], form: str, share: float) -> list[Predicted]:
    """Each predictor against the measured loss of converting a layer to `form` at `share` of its multiplications.

    Layers of one network have much in common: they are ranked inside it, and only then put together.
    """
    stats: Any = require("scipy.stats", "rank correlation")
    found = [_against(p, networks, form, share, stats) for p in PREDICTORS]
    known = [p for _, _, p, _ in found if p is not None]
    if known:
        holm = require("statsmodels.stats.multitest", "many tests at once").multipletests(known, method="holm")[1]
        adjusted = iter(holm.tolist())
        return [Predicted(q, pooled, None if p is None else next(adjusted), own) for q, pooled, p, own in found]
    return [Predicted(q, pooled, None, own) for q, pooled, _, own in found]


def _against(
    predictor: Predictor, networks: Mapping[str, Sequence[Row]], form: str, share: float, stats: Any
) -> tuple[Predictor, Interval | None, float | None, dict[str, float]]:
    x: list[float] = []
    y: list[float] = []
    own = {}
    for name, rows in networks.items():
        pairs = [(predictor.of(row, form, share), at_share(row, form, share, "effect")) for row in rows]
        both = np.array([pair for pair in pairs if None not in pair], dtype=float)
        if len(both) < LEAST or not np.ptp(both, axis=0).all():
            continue
        own[name] = float(stats.spearmanr(*both.T).statistic)
        ranks = (stats.rankdata(both, axis=0) - 0.5) / len(both)
        x, y = [*x, *ranks[:, 0].tolist()], [*y, *ranks[:, 1].tolist()]
    if not own:
        return predictor, None, None, own
    return predictor, rank_correlation(x, y), float(stats.spearmanr(x, y).pvalue), own


@dataclass(frozen=True)
class Ranking:
    """What the fit's own error says of a layer's candidates, which the network was never run for.

    layers     that have candidates of several forms at the share
    within     median over layers of the rank correlation of error and effect over all candidates
    right      in how many layers the form with the smallest error has the smallest effect
    regret     median over the others of the effect of the form chosen so, over the smallest; 1.0 when there are none
    sizes      effect over error × noise felt, all candidates: median, and where nine of ten lie
    """

    layers: int
    within: float
    right: int
    regret: float
    sizes: tuple[float, float, float]


def ranking(networks: Mapping[str, Sequence[Row]], share: float) -> Ranking | None:
    """None when no layer has candidates of two forms at the share."""
    stats: Any = require("scipy.stats", "rank correlation")
    within, regrets, sizes = [], [], []
    for row in (row for rows in networks.values() for row in rows):
        forms = [f for f in sorted({c["form"] for c in row["candidates"]}) if at_share(row, f, share, "effect")]
        if len(forms) < 2:
            continue
        both = np.array([(c["error"], c["effect"]) for c in row["candidates"]])
        within.append(float(stats.spearmanr(*both.T).statistic))
        fitted = both[both[:, 0] > 0]  # where nothing is missed, rounding may leave less than nothing
        sizes += (fitted[:, 1] / (fitted[:, 0] * row["felt"])).tolist()
        chosen = min(forms, key=lambda form: at_share(row, form, share, "error") or 0.0)
        regrets.append(at_share(row, chosen, share, "effect") / at_share(row, BEST, share, "effect"))  # type: ignore[operator]
    if not regrets:
        return None
    wrong = [r for r in regrets if r > 1]
    middle, low, high = np.quantile(sizes, [0.5, 0.05, 0.95]).tolist()
    regret = float(np.median(wrong)) if wrong else 1.0
    return Ranking(len(regrets), float(np.median(within)), len(regrets) - len(wrong), regret, (middle, low, high))
