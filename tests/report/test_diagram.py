"""Diagrams on the page: nested without crossings, nothing on top of anything else, many alike drawn as few."""

import json
import re
from itertools import combinations, pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sepwise.errors import UnsupportedError
from sepwise.report import draw
from sepwise.report.nesting import Chain, Fork, More, nested
from sepwise.report.placing import EDGE, Page, place


def box(operation: str = "convolution", **facts: Any) -> dict[str, Any]:
    sizes = {"channels": (4, 8), "kernel": (3, 3), "stride": (1, 1), "groups": 1} if operation == "convolution" else {}
    return {"operation": operation, "shape": (8, 5, 5), "then": (), **sizes, **facts}


def parallel(count: int, **facts: Any) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
    """An input, `count` convolutions side by side, and their concatenation."""
    boxes = [box("input"), *(box(**facts) for _ in range(count)), box("concatenate")]
    return boxes, [(0, i) for i in range(1, count + 1)] + [(i, count + 1) for i in range(1, count + 1)]


def test_nesting() -> None:
    assert nested([{}, {}], [(0, 1)]) == Chain((0, 1))
    boxes, arrows = parallel(3)
    one, two, three = (Chain((i,)) for i in (1, 2, 3))
    assert nested(boxes, arrows) == Chain((0, Fork((one, two, three)), 4))


def test_branches_that_meet_before_the_others() -> None:
    """0 forks into 1 and 2, which meet in 3; 4 joins them at the end with what comes straight from 0."""
    arrows = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (0, 4)]
    boxes = [box(f"{i}") for i in range(5)]
    inner = Fork((Chain((1,)), Chain((2,))))
    assert nested(boxes, arrows) == Chain((0, Fork((Chain((inner, 3)), Chain(()))), 4))


@pytest.mark.parametrize("count", [4, 5, 256])
def test_many_alike_are_drawn_as_few(count: int) -> None:
    fork = nested(*parallel(count)).items[1]
    assert isinstance(fork, Fork)
    all_of_them = [Chain((i,)) for i in range(1, count + 1)]
    few = [*all_of_them[:2], More(count), all_of_them[-1]]
    assert list(fork.branches) == (all_of_them if count == 4 else few)
    boxes, arrows = parallel(count)
    picture = draw({"title": "", "boxes": boxes, "arrows": arrows})
    assert ("in all" in picture) == (count > 4)
    assert picture.count("3×3 convolution") == (4 if count == 4 else 3)


def test_only_those_that_are_alike() -> None:
    boxes, arrows = parallel(6)
    boxes[4] = box(kernel=(5, 5))
    fork = nested(boxes, arrows).items[1]
    assert isinstance(fork, Fork)
    assert len(fork.branches) == 6


def test_branches_that_touch_are_refused() -> None:
    arrows = [(0, 1), (0, 2), (1, 3), (1, 4), (2, 4), (3, 5), (4, 5)]
    with pytest.raises(UnsupportedError, match="the branches to the boxes 1, 2 touch each other on the way to 5"):
        nested([{}] * 6, arrows)


@st.composite
def diagrams(draw: Any) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
    """Chains and forks within each other, at random."""
    boxes: list[dict[str, Any]] = [box("input")]
    arrows: list[tuple[int, int]] = []

    def add(sources: list[int], operation: str) -> int:
        boxes.append(box(operation))
        arrows.extend((source, len(boxes) - 1) for source in sources)
        return len(boxes) - 1

    def grow(start: int, depth: int) -> int:
        here = start
        for _ in range(draw(st.integers(0, 2))):
            if depth and draw(st.booleans()):
                ends = [grow(here, depth - 1) for _ in range(draw(st.integers(2, 6)))]
                here = add(ends, draw(st.sampled_from(["sum", "concatenate"])))
            else:
                here = add([here], "convolution")
        return here

    end = grow(0, 3)
    add([end], "output")
    return boxes, arrows


@given(diagrams())
def test_nothing_stands_on_anything(diagram: tuple[list[dict[str, Any]], list[tuple[int, int]]]) -> None:
    page = page_of(*diagram)
    for rect in page.rects:
        assert EDGE - 0.01 <= rect.x <= rect.x + rect.width <= page.width - EDGE + 0.01
        assert EDGE - 0.01 <= rect.y <= rect.y + rect.height <= page.height - EDGE + 0.01
    for one, other in combinations(page.rects, 2):
        beside = one.x + one.width < other.x or other.x + other.width < one.x
        assert beside or one.y + one.height < other.y or other.y + other.height < one.y
    for rect in page.rects:  # every box but the first is led to, every box but the last is led from
        left, right = rect.x, rect.x + rect.width
        ends = [line[-1][1] for line in page.lines if left <= line[-1][0] <= right]
        starts = [line[0][1] for line in page.lines if left <= line[0][0] <= right]
        assert rect is page.rects[0] or rect.y in ends
        assert rect is page.rects[-1] or rect.y + rect.height in starts
    segments = [(line, *ends) for line in page.lines for ends in pairwise(line)]
    for _, (x0, y0), (x1, y1) in segments:
        assert x0 == x1 or y0 == y1
        for rect in page.rects:  # a line may end at the edge of a box, never run through one
            inside = max(x0, x1) > rect.x + 0.01 and min(x0, x1) < rect.x + rect.width - 0.01
            assert not (inside and max(y0, y1) > rect.y + 0.01 and min(y0, y1) < rect.y + rect.height - 0.01)
    for (line, a, b), (other, c, d) in combinations(segments, 2):
        if line is not other and a[0] == b[0] and c[1] == d[1]:
            assert not (min(c[0], d[0]) < a[0] < max(c[0], d[0]) and min(a[1], b[1]) < c[1] < max(a[1], b[1]))


def page_of(boxes: list[dict[str, Any]], arrows: list[tuple[int, int]]) -> Page:
    return place(nested(boxes, arrows), [(100, 40)] * len(boxes), lambda number: boxes[number]["operation"] == "sum")


def test_a_shorter_branch_of_a_sum_goes_around() -> None:
    boxes = [box("input"), box(), box("sum")]
    page = page_of(boxes, [(0, 1), (1, 2), (0, 2)])
    around = next(line for line in page.lines if len(line) == 4)
    first, _, last = page.rects
    assert around[0] == (first.x + first.width, first.y + first.height / 2)
    assert around[-1] == (last.x + last.width, last.y + last.height / 2)
    assert [note[2] for note in page.notes] == ["identity"]


def lines(**facts: Any) -> list[str]:
    text = draw({"title": "", "boxes": [box("input"), box(**facts)], "arrows": [(0, 1)]})
    return re.findall(r">([^<>]+)</text>", text)[2:]


def test_the_words_in_a_box() -> None:
    assert lines(then=("batchnorm2d", "relu")) == ["3×3 convolution", "4 → 8 channels", "norm · ReLU", "8×5×5"]
    assert lines(groups=2, stride=(2, 2))[:4] == ["3×3 convolution", "4 → 8 channels", "in 2 groups", "stride 2×2"]
    assert lines(groups=4)[0] == "3×3 depthwise"
    assert lines(operation="pool", kernel=(3, 3), stride=(2, 2), then=("maxpool2d",))[:2] == [
        "3×3 maximum",
        "stride 2×2",
    ]
    assert lines(operation="activation", then=("silu",)) == ["silu", "8×5×5"]
    assert lines(operation="sum", then=("bias",)) == ["sum", "bias", "8×5×5"]


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({}, "both"),
        ({"kernel": (1, 1)}, "channels"),
        ({"kernel": (1, 1), "channels": (1, 8)}, "channels"),
        ({"groups": 4}, "pixels"),
        ({"channels": (1, 1)}, "pixels"),
        ({"operation": "pool"}, "pixels"),
        ({"operation": "sum"}, "other"),
    ],
)
def test_colours_say_what_a_box_looks_at(facts: dict[str, Any], kind: str) -> None:
    text = draw({"title": "", "boxes": [box("input"), box(**facts)], "arrows": [(0, 1)]})
    assert re.findall(r'<rect class="(\w+)"', text) == ["page", "other", kind]


def test_the_file_is_one_picture_for_light_and_dark_pages() -> None:
    diagram = {"title": "a < b & c", "boxes": [box("input"), box()], "arrows": [(0, 1)]}
    text = draw(json.loads(json.dumps(diagram)))
    assert text == draw(diagram)
    root = ElementTree.fromstring(text)
    size = float(root.attrib["width"]), float(root.attrib["height"])
    assert root.attrib["viewBox"] == f"0 0 {size[0]:g} {size[1]:g}"
    assert root[0].text == "a < b & c"
    used, light, dark = set(re.findall(r'class="(\w+)"', text)), *text.split("@media (prefers-color-scheme: dark)")
    for name in used - {"name", "arrow"}:
        assert f".{name} {{" in light
        assert f".{name} {{" in dark.partition("</style>")[0]
