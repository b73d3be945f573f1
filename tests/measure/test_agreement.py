"""Agreement: against the definitions in NumPy and SciPy, streamed, merged, and honest about NaN."""

import json
import math

import numpy as np
import pytest
import torch

from sepwise.errors import ShapeError
from sepwise.measure import Agreement, agreement
from sepwise.measure.agreement import kind_of

torch.manual_seed(0)
MAPS = torch.rand(6, 1, 9, 7), torch.rand(6, 1, 9, 7)
SCORES = torch.randn(12, 5), torch.randn(12, 5)


def test_maps_follow_their_definitions():
    found = agreement(*MAPS)
    x, y = (m.double().numpy().ravel() for m in MAPS)
    both = ((x > 0.5) & (y > 0.5)).sum()
    precision, recall = both / (x > 0.5).sum(), both / (y > 0.5).sum()
    assert found.kind == "maps"
    assert found.f1 == pytest.approx(2 * precision * recall / (precision + recall), rel=1e-12)
    assert found.mean_absolute_difference == pytest.approx(np.abs(x - y).mean(), rel=1e-12)
    assert found.correlation == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-12)
    assert found.psnr_db == pytest.approx(-10 * np.log10(((x - y) ** 2).mean()), rel=1e-12)


def test_classes_follow_their_definitions():
    found = agreement(*SCORES)
    x, y = (s.double() for s in SCORES)
    kl = torch.nn.functional.kl_div(x.log_softmax(1), y.log_softmax(1), reduction="batchmean", log_target=True)
    assert found.kind == "classes"
    assert found.top1 == (x.argmax(1) == y.argmax(1)).double().mean().item()
    assert found.kl_nats == pytest.approx(kl.item(), rel=1e-12)
    assert found.relative_error == pytest.approx(((x - y).norm() / y.norm()).item(), rel=1e-12)


@pytest.mark.parametrize("pair", [MAPS, SCORES], ids=["maps", "classes"])
def test_batches_and_merging_give_the_same_as_all_at_once(pair):
    whole = agreement(*pair).to_dict()
    kind = whole.pop("kind")
    streamed, first, second = Agreement(), Agreement(), Agreement()
    for i, (x, y) in enumerate(zip(pair[0].split(1), pair[1].split(1), strict=True)):
        streamed.update(x, y)
        (first if i < 2 else second).update(x, y)
    for other in (streamed.to_dict(), first.merge(second).to_dict()):
        assert other.pop("kind") == kind
        assert other == pytest.approx(whole, rel=1e-12)


def test_the_correlation_survives_a_large_mean():
    x, y = (m.double() + 1e7 for m in MAPS)
    expected = np.corrcoef(x.numpy().ravel(), y.numpy().ravel())[0, 1]
    found = Agreement("tensors")
    for a, b in zip(x, y, strict=True):
        found.update(a, b)
    assert found.correlation == pytest.approx(expected, rel=1e-7)


def test_a_changed_answer_is_seen():
    x, y = MAPS[0], MAPS[0].clone()
    y[0, 0, 0, :] = 1 - y[0, 0, 0, :]
    found = agreement(y, x)
    assert found.f1 < 1
    assert found.correlation < 1 - 1e-3
    assert found.mean_absolute_difference > 1e-4


def test_the_same_tensors():
    found = agreement(MAPS[0], MAPS[0])
    assert (found.f1, found.mean_absolute_difference, found.relative_error) == (1.0, 0.0, 0.0)
    assert found.correlation == pytest.approx(1.0, abs=1e-12)
    assert math.isinf(found.psnr_db)
    assert found.to_dict()["psnr_db"] is None
    assert str(found).endswith("PSNR dB undefined, relative error 0.0000, identical")


def test_what_does_not_exist_is_none_and_json_stays_strict():
    found = agreement(torch.full((1, 1, 2, 2), 0.1), torch.full((1, 1, 2, 2), 0.2))
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["f1"] is None
    assert plain["correlation"] is None
    assert plain["mean_absolute_difference"] == pytest.approx(0.1, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_left_out_and_counted(bad):
    x = MAPS[0].clone()
    x[0, 0, 0, :3] = bad
    found = agreement(x, MAPS[1], "maps")
    assert found.not_finite == 3
    assert math.isfinite(found.correlation)
    assert "3 of 378 values NaN or infinite, left out" in str(found)


def test_a_row_with_nan_is_no_agreement_and_no_disagreement():
    x = SCORES[1].clone()
    x[3, 0] = math.nan
    found = agreement(x, SCORES[1])
    assert (found.top1, found.kl_nats, found.not_finite) == (1.0, 0.0, 1)


def test_kinds():
    assert kind_of(SCORES[0]) == "classes"
    assert kind_of(MAPS[0]) == "maps"
    assert kind_of(MAPS[0] + 1) == "tensors"
    assert kind_of(torch.rand(5)) == "tensors"


def test_zero_reference():
    assert agreement(torch.ones(3), torch.zeros(3)).relative_error == math.inf
    assert agreement(torch.zeros(3), torch.zeros(3)).relative_error == 0.0


def test_nothing_compared_yet():
    assert math.isnan(Agreement("maps").f1)
    assert str(Agreement()) == "nothing compared yet"


def test_refusals():
    with pytest.raises(ShapeError, match=r"outputs \(2, 3\) and reference \(3, 2\) must have one shape"):
        agreement(torch.zeros(2, 3), torch.zeros(3, 2))
    with pytest.raises(ShapeError, match="expected one of maps, classes, tensors"):
        agreement(*MAPS, "pixels")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="maps cannot be merged with classes"):
        agreement(*MAPS).merge(agreement(*SCORES))
    with pytest.raises(ShapeError, match=r"class scores are \(N, classes\); got"):
        agreement(*MAPS, "classes")
