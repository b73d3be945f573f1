"""The layout of the curve: every mark inside the axes, cheaper to the left, better upwards."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sepwise.report.curve import APART, Point, chart

KINDS = st.sampled_from(["this conversion", "other budget", "data-free"])
POINTS = st.lists(st.builds(Point, st.floats(0.01, 1.5), st.floats(-1, 50), KINDS), min_size=1, max_size=12)


@given(POINTS)
def test_every_mark_lies_inside_the_axes(points):
    drawn = chart(points, 640, 340)
    marks = [m for series in drawn.series for m in series.marks]
    assert len(marks) == len(points)
    for mark in marks:
        assert drawn.left <= mark.x <= drawn.right
        assert drawn.top - 0.1 <= mark.y <= drawn.bottom + 0.1
    for tick in drawn.upward:
        assert drawn.top - 0.1 <= tick.at <= drawn.bottom + 0.1


@given(POINTS)
def test_order_on_the_page_is_order_of_the_numbers(points):
    drawn = chart(points, 640, 340)
    for series in drawn.series:
        across = [m.x for m in series.marks]
        assert across == sorted(across)


@given(POINTS)
def test_ticks_are_few_and_read_differently(points):
    drawn = chart(points, 380, 320)
    labels = [tick.text for tick in drawn.upward]
    assert 2 <= len(labels) <= 12
    assert len(set(labels)) == len(labels)


@given(POINTS)
def test_values_written_beside_marks_have_room(points):
    for series in chart(points, 640, 340).series:
        written = [m.x for m in series.marks if m.is_written]
        assert written
        assert all(b - a >= APART - 0.2 for a, b in pairwise(written))


def test_fitted_budgets_share_a_line_and_data_free_does_not():
    drawn = chart(
        [Point(0.5, 0.99, "other budget"), Point(0.25, 0.15, "data-free"), Point(0.25, 0.97, "this conversion")],
        640,
        340,
    )
    assert [(s.name, len(s.marks)) for s in drawn.series] == [("fitted on pictures", 2), ("data-free", 1)]
    this, other = drawn.series[0].marks
    assert (this.is_this, other.is_this) == (True, False)
    assert this.x < other.x
    assert this.y > other.y
    assert drawn.upward[0].text == "0.0"
    assert drawn.upward[-1].text == "1.0"


@pytest.mark.parametrize("fraction", [0.1, 1.0])
def test_one_point_still_gets_axes(fraction):
    drawn = chart([Point(fraction, 1.0, "this conversion")], 640, 340)
    assert "1×" in [tick.text for tick in drawn.across]
    assert drawn.series[0].marks[0].is_written


def test_harm_is_drawn_by_powers_of_ten_with_the_least_on_top():
    points = [Point(1 / 2**n, 10.0 ** (n - 6), "best at its cost") for n in range(1, 5)]
    points.append(Point(0.2, 3e-4, "this conversion", "F1 0.9"))
    drawn = chart(points, 640, 340, "predicted harm", "faster", harm=True)
    (series,) = drawn.series
    assert series.name == "the least at each cost"
    assert [tick.text for tick in drawn.upward] == ["1e-2", "1e-3", "1e-4", "1e-5"]
    assert [tick.at for tick in drawn.upward] == sorted((tick.at for tick in drawn.upward), reverse=True)
    by_cost = sorted(series.marks, key=lambda mark: mark.x)
    assert [mark.y for mark in by_cost] == sorted((mark.y for mark in by_cost), reverse=True)
    assert by_cost[-1].y == drawn.top
    assert all(mark.text_x + 50 < 640 for mark in by_cost if mark.anchor == "start"), "no value leaves the drawing"
    (mine,) = [mark for mark in series.marks if mark.is_this]
    assert mine.tip == "F1 0.9: 5.0× faster, predicted harm 3.0×10⁻⁴"
    assert mine.text_x > mine.x, "the line rises to the right: below it and right of the mark there is room"
