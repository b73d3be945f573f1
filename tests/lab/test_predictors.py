"""Predictors of the loss: interpolation between ranks, planted relations found, many tests paid for."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from sepwise.lab.predictors import PREDICTORS, at_share, predicted, ranking
from sepwise.lab.verdict import rank_correlation


def candidate(form, share, effect, error=None):
    error = effect if error is None else error
    return {"form": form, "share": share, "effect": effect, "error": error, "energy": effect, "nearest": None}


def layer(loss, place=0.0, neighbours=0.5, **rest):
    row = {"place": place, "neighbours": neighbours, "across": 0.1, "dimensions_share": 0.5, "intra": None}
    row |= {"weight": 1.0, "macs": 100, "felt": 1.0}
    return row | {"candidates": [candidate("depthwise", 0.1, 4 * loss), candidate("depthwise", 0.4, loss)]} | rest


def network(relation, count=20, seed=0, scale=1.0):
    """Layers whose loss follows the correlation of neighbours by `relation`: 1, -1 or 0."""
    random = np.random.default_rng(seed)
    near = random.uniform(0.1, 0.9, count)
    other = random.permutation(near) if relation == 0 else relation * near
    return [
        layer(scale * float(np.exp(5 * y)), i / count, float(x))
        for i, (x, y) in enumerate(zip(near, other, strict=True))
    ]


def of(found, name):
    return next(p for p in found if p.predictor.name == name)


def test_between_two_ranks_logarithms_are_interpolated():
    row = {"candidates": [candidate("cp", 0.1, 0.4), candidate("cp", 0.4, 0.1), candidate("spatial", 0.2, 0.01)]}
    assert at_share(row, "cp", 0.2, "effect") == pytest.approx(0.2)
    assert at_share(row, "cp", 0.4, "effect") == pytest.approx(0.1)
    assert at_share(row, "cp", 0.09, "effect") is None
    assert at_share(row, "cp", 0.41, "effect") is None
    assert at_share(row, "cp", 0.2, "nearest") is None
    assert at_share(row, "best", 0.2, "effect") == pytest.approx(0.01)
    assert at_share(row, "best", 0.3, "effect") == at_share(row, "cp", 0.3, "effect")
    assert at_share(row, "best", 0.9, "effect") is None


@pytest.mark.parametrize("relation", [1, -1])
def test_a_planted_relation_is_found_inside_each_network(relation):
    # In the second network every loss is a million times as large: ranked together, networks would hide the relation.
    networks = {"a": network(relation), "b": network(relation, seed=1, scale=1e6)}
    found = of(predicted(networks, "best", 0.28), "correlation of neighbours")
    assert found.pooled is not None
    assert found.pooled.mean == pytest.approx(relation)
    assert found.networks == pytest.approx({"a": relation, "b": relation})
    assert found.p is not None
    assert found.p < 1e-6
    assert found.claimed == pytest.approx(-relation)  # the claim expects less loss where neighbours are alike


def test_without_a_relation_none_is_found_and_tests_are_paid_for():
    found = predicted({"a": network(0), "b": network(0, seed=1)}, "best", 0.28)
    none = of(found, "correlation of neighbours")
    assert none.pooled is not None
    assert none.pooled.low < 0 < none.pooled.high
    tried = [p for p in found if p.p is not None]
    assert len(tried) > 1
    assert none.p is not None
    assert none.p > spearmanr(*_ranks([network(0), network(0, seed=1)])).pvalue  # type: ignore[attr-defined]


def _ranks(networks):
    both = [[(r["neighbours"], at_share(r, "best", 0.28, "effect")) for r in rows] for rows in networks]
    return np.concatenate([np.argsort(np.argsort(np.array(pairs, dtype=float), axis=0), axis=0) for pairs in both]).T


def test_what_is_the_same_in_all_layers_or_unknown_predicts_nothing():
    found = predicted({"a": network(1)}, "best", 0.28)
    assert {p.predictor.name for p in found} == {p.name for p in PREDICTORS}
    for name in ("multiplications", "intra-kernel correlation", "energy lost, nearest weight"):
        assert (of(found, name).pooled, of(found, name).p) == (None, None)
    assert all(p.pooled is None for p in predicted({"a": network(1, count=7)}, "best", 0.28))
    assert all(p.pooled is None for p in predicted({}, "best", 0.28))


def test_what_the_fit_says_of_candidates():
    costs = ((0.1, 0.4), (0.4, 0.1))
    both = [candidate(form, share, by * e, by * e) for form, by in (("cp", 1), ("spatial", 2)) for share, e in costs]
    right = {"felt": 1.0, "candidates": both}
    wrong = {"felt": 1.0, "candidates": [*both[:2], *({**c, "error": c["error"] / 4} for c in both[2:])]}
    found = ranking({"a": [right, wrong], "b": [layer(0.1)]}, 0.2)
    assert found is not None
    assert (found.layers, found.right) == (2, 1)  # one form alone is no choice
    assert found.regret == pytest.approx(2)
    assert 0 < found.within <= 1
    # Loss over error × noise felt: 1 for the six candidates that tell the truth, 4 for the two that promise too much.
    assert found.sizes[:2] == pytest.approx((1, 1))
    assert found.sizes[2] == pytest.approx(4)
    assert ranking({"b": [layer(0.1)]}, 0.2) is None


def test_rank_correlation_resamples_pairs():
    random = np.random.default_rng(3)
    x = random.normal(size=40).round(1)  # with ties
    y = x + random.normal(size=40)
    found = rank_correlation(x.tolist(), y.tolist())
    draws = np.random.default_rng(0).integers(0, 40, (2000, 40))
    whole, *each = (spearmanr(x[rows], y[rows]).statistic for rows in (np.arange(40), *draws))  # type: ignore[attr-defined]
    assert (found.mean, found.n) == (pytest.approx(whole), 40)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(each, [0.025, 0.975])))
