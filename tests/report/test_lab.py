"""The page of the lab: every figure and table of a claim, in the order in which they were given."""

import re

import pytest

from sepwise import records, report
from sepwise.errors import SepwiseError
from sepwise.report import chart
from sepwise.report.lab import figures

CURVES = {"kind": "curves", "x": "x", "y": "y", "series": [{"name": "one", "points": [[1, 2, 1, 3], [2, 3, 2, 4]]}]}
KERNELS = {
    "kind": "kernels",
    "title": "learned",
    "columns": ["red"],
    "rows": [{"name": "a", "planes": [[[1.0, -1.0]]]}],
}
CLAIM = {
    "id": "U9",
    "says": "so",
    "source": "me",
    "recipe": "r",
    "verdict": "holds",
    "measured": "it is",
    "scale": "small",
}


def page(folder, **rest):
    records.append(
        folder / "records.jsonl", [records.here("lab.claim", CLAIM | {"trials": 1, "trials_wanted": 1} | rest)]
    )
    return report.build(folder).read_text(encoding="utf-8")


def test_a_claim_may_have_no_figure_one_or_several():
    assert figures(None) == figures([]) == []
    assert [each["title"] for each in figures(CURVES)] == [None]
    assert [each["title"] for each in figures([CURVES, KERNELS])] == [None, "learned"]


def test_every_figure_is_drawn_and_named(tmp_path):
    html = page(tmp_path, figure=[CURVES, KERNELS])
    assert "records.jsonl" not in html  # there is none beside it: its numbers come from the records of trials
    assert re.findall(r'class="lab-figure" role="img" aria-label="([^"]*)"', html) == ["it is", "learned"]
    assert html.count("<svg") >= 2


def test_rows_under_other_names_are_another_table_and_columns_keep_their_order(tmp_path):
    html = page(tmp_path, table=[{"zebra": 1, "ape": 2}, {"zebra": 3, "ape": 4}, {"last": "it"}])
    assert re.findall(r"<thead><tr>(.*?)</tr>", html) == [
        '<th scope="col">zebra</th><th scope="col">ape</th>',
        '<th scope="col">last</th>',
    ]


def test_series_that_belong_together_share_a_colour_and_one_name():
    pair = [
        CURVES["series"][0] | {"name": name, "colour": 3, "only": only} for name, only in (("", "line"), ("m", "dots"))
    ]
    drawn = chart.svg(CURVES | {"series": [*pair, CURVES["series"][0]]})
    assert chart.COLOURS[3] in drawn
    assert chart.COLOURS[0] not in drawn
    assert [name for name in re.findall(r">([a-z]+)</text>", drawn) if name in ("m", "one")] == ["m", "one"]


def test_titles_and_columns_are_written():
    drawn = chart.svg(KERNELS)
    assert re.findall(r">(red|learned|a)</text>", drawn) == ["a", "red", "learned"]


def test_an_unknown_chart_is_refused():
    with pytest.raises(SepwiseError, match="no chart of kind 'pie'; the kinds are intervals, curves, scatter, kernels"):
        chart.svg({"kind": "pie"})
