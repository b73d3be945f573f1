"""`factorize` refuses, in one sentence each, what it cannot do; and what a rank may be."""

from typing import Any

import pytest
import torch

from sepwise import factorize
from sepwise.errors import ShapeError, UnsupportedError
from sepwise.factor import FORMS, check_rank, form_named, shape_of

WEIGHT = torch.arange(1.0, 6 * 4 * 9 + 1).reshape(6, 4, 3, 3).sin()


def test_no_rank_means_the_full_one():
    assert [factorize(WEIGHT, form).rank for form in FORMS] == [6, 4, 12, 12, 24, (4, 6)]


def test_unknown_form():
    with pytest.raises(
        UnsupportedError,
        match=r"no form 'svd'; the forms are depthwise, blueprint, spatial, spatial_reversed, cp, tucker$",
    ):
        factorize(WEIGHT, "svd")
    assert form_named("cp").name == "cp"


@pytest.mark.parametrize("rank", [0, -1, 7, 2.0, "2", True, (2, 2)])
def test_rank_out_of_range_or_of_the_wrong_kind(rank):
    with pytest.raises(ShapeError) as refusal:
        factorize(WEIGHT, "depthwise", rank)
    assert str(refusal.value) == (
        f"depthwise: rank={rank!r} for a weight (6, 4, 3, 3): expected an integer from 1 to 6"
    )


@pytest.mark.parametrize("rank", [0, 5, (4, 7), (0, 1), (1, 2, 3), (2.0, 2), (True, 2), "44", None.__class__])
def test_rank_of_tucker_is_a_pair(rank):
    with pytest.raises(
        ShapeError, match=r"for a weight \(6, 4, 3, 3\): expected \(in, out\) from \(1, 1\) to \(4, 6\)$"
    ):
        factorize(WEIGHT, "tucker", rank)


def test_one_number_for_tucker_stands_for_both():
    assert factorize(WEIGHT, "tucker", 3).rank == (3, 3)
    from_json: Any = [2, 3]
    assert check_rank(FORMS["tucker"], shape_of(WEIGHT.shape), from_json) == (2, 3)


def test_a_form_that_does_not_exist_for_the_weight():
    with pytest.raises(UnsupportedError, match=r"^factorize: spatial: a kernel \(3,\) has one spatial axis"):
        factorize(torch.ones(2, 2, 3), "spatial")
    with pytest.raises(
        UnsupportedError, match=r"^factorize: cp: a kernel of one pixel \(1, 1\) has nothing to separate"
    ):
        factorize(torch.ones(2, 2, 1, 1), "cp")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none(bad):
    weight = WEIGHT.clone()
    weight[0, 0, 0, 0] = bad
    with pytest.raises(ShapeError, match="finite floating-point numbers, no NaN or Inf"):
        factorize(weight)


def test_integers_are_refused():
    with pytest.raises(ShapeError, match=r"the weight \(6, 4, 3, 3\) must hold finite floating-point numbers"):
        factorize(WEIGHT.long())


@pytest.mark.parametrize("shape", [(3, 3), (2, 2, 1, 1, 1, 1)])
def test_no_convolution_weight(shape):
    with pytest.raises(ShapeError, match=r"with one to three spatial axes; got shape \("):
        factorize(torch.ones(shape))


@pytest.mark.parametrize("groups", [0, 4])
def test_groups_that_do_not_divide(groups):
    with pytest.raises(ShapeError, match=f"must be a positive multiple of groups={groups}"):
        factorize(WEIGHT, groups=groups)
