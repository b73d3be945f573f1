"""A diagram as an SVG picture: boxes from top to bottom, parallel branches side by side, no line across another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import prod
from typing import Any

from .nesting import nested
from .placing import Line, Rect, place

LINE, MARGIN, CORNER = 16, 10, 8  # pixels: a line of text, around the text of a box, of a line's bend
LETTER, BOLD = 6.8, 8.2  # width of a letter, on average, in a wide font
STYLE = """
    text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", Arial, sans-serif;
           fill: #1c2128; text-anchor: middle }
    .name { font-weight: 600; font-size: 13px } .quiet { fill: #5b6472; font-size: 11px }
    .page { fill: #ffffff } rect { stroke-width: 1.2 } path { stroke: #5b6472; stroke-width: 1.4; fill: none }
    .arrow { marker-end: url(#tip) } #tip path { fill: #5b6472; stroke: none }
    .pixels { fill: #dbe8fc; stroke: #3b6fc4 } .channels { fill: #fdebcb; stroke: #b9770e }
    .both { fill: #d5f0e2; stroke: #24835a } .other { fill: #f1f3f6; stroke: #7d8896 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e9edf2 } .quiet { fill: #a4afbd } .page { fill: #101419 } path { stroke: #9aa5b3 }
      #tip path { fill: #9aa5b3 } .pixels { fill: #15304f; stroke: #58a6ff }
      .channels { fill: #3f2f10; stroke: #dba13a } .both { fill: #12392a; stroke: #4cc38a }
      .other { fill: #1d232b; stroke: #7d8896 }
    }
"""
TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z"/></marker>'
)
NAMES = {"batchnorm2d": "norm", "groupnorm": "group norm", "relu": "ReLU", "maxpool2d": "maximum", "avgpool2d": "mean"}


def draw(diagram: Mapping[str, Any]) -> str:
    """The text of an SVG file, readable on light and on dark pages.

    diagram    title, boxes and arrows, as `sepwise.measure.Diagram.to_dict()` gives them
    Blue boxes look at neighbouring pixels of one channel, orange ones at the channels of one pixel, green ones at both.
    More than four equal branches are drawn as three, with their number.
    Raises UnsupportedError for a diagram whose branches cannot be drawn beside each other.

    >>> box = {"operation": "input", "shape": (3, 8, 8), "then": ()}
    >>> print(draw({"title": "Nothing", "boxes": [box, box | {"operation": "output"}], "arrows": [(0, 1)]}))
    <svg xmlns=...<title>Nothing</title>...>input</text>...>output</text>...</svg>
    """
    boxes, texts = diagram["boxes"], [_text(box) for box in diagram["boxes"]]
    widest = max(max(BOLD * len(text[0]), *(LETTER * len(line) for line in text[1:])) for text in texts)
    sizes = [(2 * MARGIN + round(widest), MARGIN + LINE * len(text)) for text in texts]
    page = place(nested(boxes, diagram["arrows"]), sizes, lambda number: boxes[number]["operation"] == "sum")
    width, height = round(page.width), round(page.height)
    parts = [
        f"<title>{escape(diagram['title'])}</title>",
        f"<style>{STYLE}  </style>",
        f"<defs>{TIP}</defs>",
        f'<rect class="page" width="{width}" height="{height}" rx="10"/>',
        *(_path(line) for line in page.lines),
        *(_drawn(rect, _kind(boxes[rect.number]), texts[rect.number]) for rect in page.rects),
        *(f'<text class="quiet" x="{_n(x)}" y="{_n(y + 4)}">{note}</text>' for x, y, note in page.notes),
    ]
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    body = "\n  ".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n  {body}\n</svg>\n'


def _text(box: Mapping[str, Any]) -> list[str]:
    """The lines of a box: its name, its numbers, what follows in its place, the shape of what comes out."""
    operation, kernel, stride = box["operation"], box.get("kernel") or (), box.get("stride") or ()
    then = [NAMES.get(name, str(name)) for name in box["then"]]
    lines = [operation]
    if operation == "convolution":
        (into, out), groups = box["channels"], box["groups"]
        word = "channel" if into == out == 1 else "channels"
        lines = [f"{_times(kernel)} {'depthwise' if groups == into > 1 else 'convolution'}", f"{into} → {out} {word}"]
        lines += [f"in {groups} groups"] if 1 < groups < into else []
    elif operation == "pool":
        lines, then = [" ".join([_times(kernel), *then]).strip()], []
    elif operation in ("norm", "activation"):
        lines = []
    lines += [f"stride {_times(stride)}"] if prod(stride) > 1 else []
    return [*lines, *([" · ".join(then)] if then else []), _times(box["shape"])]


def _kind(box: Mapping[str, Any]) -> str:
    """Whether a box looks at neighbouring pixels, at several channels, or at both."""
    if box["operation"] == "pool":
        return "pixels"
    if box["operation"] != "convolution":
        return "other"
    sees_channels, sees_pixels = box["channels"][0] > box["groups"], prod(box["kernel"]) > 1
    if sees_channels and sees_pixels:
        return "both"
    return "pixels" if sees_pixels else "channels"


def _drawn(rect: Rect, kind: str, lines: Sequence[str]) -> str:
    middle, first = rect.x + rect.width / 2, rect.y + MARGIN / 2 + LINE - 4
    size = f'x="{_n(rect.x)}" y="{_n(rect.y)}" width="{_n(rect.width)}" height="{_n(rect.height)}"'
    styles = [' class="name"', *[""] * (len(lines) - 2), ' class="quiet"'][: len(lines)]
    texts = "".join(
        f'<text{style} x="{_n(middle)}" y="{_n(first + LINE * i)}">{escape(line)}</text>'
        for i, (style, line) in enumerate(zip(styles, lines, strict=True))
    )
    return f'<rect class="{kind}" {size} rx="6"/>{texts}'


def _path(line: Line) -> str:
    """A line through its corners, which are rounded, with an arrow at its end."""
    d = f"M{_n(line[0][0])} {_n(line[0][1])}"
    for (x0, y0), (x, y), (x1, y1) in zip(line, line[1:], line[2:], strict=False):
        before, after = _towards((x, y), (x0, y0)), _towards((x, y), (x1, y1))
        d += f"L{_n(before[0])} {_n(before[1])}Q{_n(x)} {_n(y)} {_n(after[0])} {_n(after[1])}"
    return f'<path class="arrow" d="{d}L{_n(line[-1][0])} {_n(line[-1][1])}"/>'


def _towards(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    dx, dy = end[0] - start[0], end[1] - start[1]
    share = min(CORNER / max(abs(dx), abs(dy), 1), 0.5)
    return start[0] + dx * share, start[1] + dy * share


def _times(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
