"""Charts of the lab, from plain data to SVG.

A chart is a dict with `kind`, `title`? and

    intervals   rows = [{name, mean, low, high, values?}], lines? = [{name, at}], x = title of the axis
    curves      series = [{name, points = [[x, mean, low, high], ...], only?, colour?}], x, y, log_x?, log_y?, lines?
                only = "line" or "dots"; colour = place in COLOURS, for series that belong together; name "": no legend
    scatter     series = [{name, points = [[x, y], ...]}], x, y, log_x?, log_y?
    kernels     rows = [{name, planes = [[[number]]]}], columns? = [name]: each plane a picture, blue below zero and
                red above, full colour at the largest number of its row
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import Any

from ..errors import SepwiseError
from ..extras import require

COLOURS = ("#3b78c4", "#d1792b", "#3a9a68", "#b44a6c", "#7a63b8", "#8a8a3a", "#4a9fb0", "#9a6a4a")
GREY = "#808890"  # text and axes: read on white and on black
WIDTH = 7.2  # inches
STYLES = {None: "o-", "line": "-", "dots": "o"}


def svg(chart: Mapping[str, Any]) -> str:
    """The chart as an SVG element with a transparent background.

    Raises SepwiseError for an unknown kind, MissingExtraError without Matplotlib.
    """
    if chart.get("kind") not in _DRAWN:
        raise SepwiseError(f"there is no chart of kind {chart.get('kind')!r}; the kinds are {', '.join(_DRAWN)}")
    matplotlib: Any = require("matplotlib", "charts")
    figures: Any = require("matplotlib.figure", "charts")
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "sepwise",
        "font.family": "sans-serif",
        "font.size": 9,
        **{f"axes.{name}": GREY for name in ("edgecolor", "labelcolor")},
        **dict.fromkeys(("text.color", "xtick.color", "ytick.color"), GREY),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(style):
        figure = figures.Figure(figsize=(WIDTH, 3.4), layout="constrained")
        _DRAWN[chart["kind"]](figure, chart)
        if chart.get("title"):
            figure.suptitle(chart["title"], size=9, x=0.01, ha="left")
        out = StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text[text.index("<svg") :]


def _intervals(figure: Any, chart: Mapping[str, Any]) -> None:
    rows = chart["rows"]
    figure.set_size_inches(WIDTH, 0.9 + 0.34 * len(rows))
    axes = figure.subplots()
    for at, row in enumerate(reversed(rows)):
        colour = COLOURS[0]
        axes.plot(row.get("values", []), [at] * len(row.get("values", [])), "|", color=colour, alpha=0.35, ms=9)
        axes.plot([row["low"], row["high"]], [at, at], "-", color=colour, lw=2)
        axes.plot(row["mean"], at, "o", color=colour, ms=6)
        axes.annotate(f"{row['mean']:.3g}", (row["mean"], at), (0, 6), textcoords="offset points", ha="center", size=8)
    axes.set_yticks(range(len(rows)), [row["name"] for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.3)
    axes.set_xlabel(chart["x"])
    _lines(axes, chart, axes.axvline, COLOURS[1:])
    axes.grid(axis="x", color=GREY, alpha=0.2)


def _curves(figure: Any, chart: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    for number, series in enumerate(chart["series"]):
        x, mean, low, high = zip(*sorted(series["points"]), strict=True)
        colour = COLOURS[series.get("colour", number) % len(COLOURS)]
        axes.plot(x, mean, STYLES[series.get("only")], color=colour, ms=4, label=series["name"])
        axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
    _lines(axes, chart, axes.axhline, (GREY,))
    _finish(axes, chart)


def _scatter(figure: Any, chart: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    for number, series in enumerate(chart["series"]):
        x, y = zip(*series["points"], strict=True)
        axes.plot(x, y, "o", color=COLOURS[number % len(COLOURS)], ms=4.5, alpha=0.75, label=series["name"])
    _finish(axes, chart)


def _kernels(figure: Any, chart: Mapping[str, Any]) -> None:
    rows = chart["rows"]
    columns = max(len(row["planes"]) for row in rows)
    figure.set_size_inches(WIDTH, max(1.0, 0.75 * len(rows)))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for cells, row in zip(grid, rows, strict=True):
        largest = max((abs(v) for plane in row["planes"] for line in plane for v in line), default=0) or 1.0
        for cell in cells:
            cell.set_axis_off()
        for cell, plane in zip(cells, row["planes"], strict=False):
            cell.imshow(plane, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
        cells[0].text(-0.3, 0.5, row["name"], transform=cells[0].transAxes, ha="right", va="center")
    for cell, name in zip(grid[0], chart.get("columns", ()), strict=False):
        cell.set_title(name, size=9, color=GREY)


def _lines(axes: Any, chart: Mapping[str, Any], draw: Callable[..., Any], colours: Sequence[str]) -> None:
    for number, line in enumerate(chart.get("lines", ())):
        draw(line["at"], color=colours[number % len(colours)], ls="--", lw=1, label=line["name"])
    if chart.get("lines") and chart["kind"] == "intervals":
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def _finish(axes: Any, chart: Mapping[str, Any]) -> None:
    axes.set_xlabel(chart["x"])
    axes.set_ylabel(chart["y"])
    ticker: Any = require("matplotlib.ticker", "charts")
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if chart.get(f"log_{name}"):
            getattr(axes, f"set_{name}scale")("log")
            low, high = axis.get_view_interval()
            if high < 100 * low:  # on less than two decades, too, a few ticks are named
                axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(color=GREY, alpha=0.2)
    if len(chart["series"]) > 1 or chart.get("lines"):
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


_DRAWN: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "intervals": _intervals,
    "curves": _curves,
    "scatter": _scatter,
    "kernels": _kernels,
}
