"""Numbers as a reader sees them: nothing that is not exact is written as exact."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sepwise.report import numerals


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_degree_below_one_is_never_written_as_one_or_zero(value):
    text = numerals.degree(value)
    assert not text.startswith(("1.000", "0.000")), text
    assert text not in ("0", "1", "1.")


@given(st.floats(1e-3, 1 - 1e-7))
def test_a_degree_reads_back_within_its_digits(value):
    assert math.isclose(float(numerals.degree(value)), value, abs_tol=0.06 * min(value, 0.01, 1 - value) + 6e-4)


@pytest.mark.parametrize("write", [numerals.count, numerals.short, numerals.times, numerals.degree, numerals.percent])
@pytest.mark.parametrize(("value", "text"), [(None, "–"), ("n/a", "n/a"), (float("nan"), "–"), (float("inf"), "–")])
def test_what_is_no_number_is_still_written(write, value, text):
    assert write(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (999_900, "1.00 M"), (1000, "1.00 k"), (12_345, "12.3 k"), (999.6e9, "1.00 T")],
)
def test_short_changes_its_prefix_at_the_right_place(value, text):
    assert numerals.short(value) == text


def test_a_size_is_written_width_first_and_only_for_two_axes():
    assert numerals.size([320, 480]) == "480×320"
    assert numerals.size([8, 16, 32]) == "8×16×32"
