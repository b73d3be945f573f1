"""Where boxes, lines and notes of a nested diagram stand on the page: from top to bottom, branches side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from .nesting import Chain, Fork, More

GAP, BESIDE, EDGE, OVERHANG = 24, 16, 16, 14  # pixels
NOTE = 64  # width kept for a note
IDENTITY = "identity"

Line = list[tuple[float, float]]


@dataclass(frozen=True)
class Size:
    """How far something reaches from its axis, to the left and to the right, and its height."""

    left: float
    right: float
    height: float = 0


@dataclass(frozen=True)
class Rect:
    """A box: its number, left upper corner and size."""

    number: int
    x: float
    y: float
    width: float
    height: float


@dataclass
class Page:
    """Everything placed: lines are lists of corners, each ending in an arrow; a note is centred on its place."""

    width: float
    height: float
    rects: list[Rect] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    notes: list[tuple[float, float, str]] = field(default_factory=list)


def place(chain: Chain, sizes: Sequence[tuple[float, float]], is_sum: Callable[[int], bool]) -> Page:
    """Place a chain that begins and ends with a box.

    sizes     width and height that each box needs; it is made wider to reach over the branches that it begins or ends
    is_sum    whether a box adds its inputs: a shorter branch into it is drawn around the longer one, as a shortcut
    """
    placing = _Placing(sizes, is_sum)
    size = placing.of_chain(chain)
    page = Page(size.left + size.right + 2 * EDGE, size.height - GAP + 2 * EDGE)
    placing.page = page
    placing.chain(chain, EDGE + size.left, EDGE - GAP, [], [])
    return page


class _Placing:
    page: Page

    def __init__(self, sizes: Sequence[tuple[float, float]], is_sum: Callable[[int], bool]) -> None:
        self.sizes, self.is_sum = sizes, is_sum
        self.known: dict[Chain, Size] = {}

    # How large things are, without a place.

    def of_chain(self, chain: Chain | More) -> Size:
        if isinstance(chain, More):
            return Size(NOTE / 2, NOTE / 2)
        if not chain.items:
            return Size(OVERHANG, NOTE)
        if chain not in self.known:
            parts = [self.of_item(chain, i) for i in range(len(chain.items))]
            left, right = max(p.left for p in parts), max(p.right for p in parts)
            self.known[chain] = Size(left, right, sum(p.height for p in parts))
        return self.known[chain]

    def of_item(self, chain: Chain, i: int) -> Size:
        """Of a box, with the arrow that leads to it, or of a fork."""
        item = chain.items[i]
        if isinstance(item, Fork):
            placed = [(x, self.of_chain(b)) for x, b in zip(self.offsets(chain, i), item.branches, strict=True)]
            left, right = max(size.left - x for x, size in placed), max(size.right + x for x, size in placed)
            return Size(left, right, max(size.height for _, size in placed))
        half = self.sizes[item][0] / 2
        spans = [self.span(chain, k, end) for k, end in ((i - 1, -1), (i + 1, 0)) if 0 <= k < len(chain.items)]
        left, right = max(half, *(-s[0] for s in spans), 0), max(half, *(s[1] for s in spans), 0)
        return Size(left, right, GAP + self.sizes[item][1])

    def span(self, chain: Chain, i: int, end: int) -> tuple[float, float]:
        """How far the box before a fork (end = 0) or after it (end = -1) reaches, to cover the branches."""
        item = chain.items[i]
        if not isinstance(item, Fork):
            return 0, 0
        shortcut = self.shortcut(chain, i)
        if shortcut is not None:
            longer = item.branches[1 - shortcut]
            assert isinstance(longer, Chain)
            return self.span(longer, end % len(longer.items), end)
        size = self.of_item(chain, i)
        return -size.left, size.right

    def shortcut(self, chain: Chain, i: int) -> int | None:
        """Which of two branches is drawn around the other: the shorter, when it holds boxes alone."""
        fork = chain.items[i]
        assert isinstance(fork, Fork)
        enclosed = 0 < i < len(chain.items) - 1
        after = chain.items[i + 1] if enclosed else None
        if not isinstance(after, int) or not self.is_sum(after) or len(fork.branches) != 2:
            return None
        first, second = (branch.boxes for branch in fork.branches)
        shorter = fork.branches[second < first]
        plain = isinstance(shorter, Chain) and all(isinstance(i, int) for i in shorter.items)
        return int(second < first) if plain and first != second else None

    def offsets(self, chain: Chain, i: int) -> tuple[float, ...]:
        """Of the axes of the branches from that of the fork: the middle of them all, or the axis of the longer one."""
        fork = chain.items[i]
        assert isinstance(fork, Fork)
        sizes, shortcut = [self.of_chain(b) for b in fork.branches], self.shortcut(chain, i)
        if shortcut is not None:
            beside = (sizes[1 - shortcut], self.of_item(chain, i - 1), self.of_item(chain, i + 1))
            around = max(size.right for size in beside) + BESIDE + sizes[shortcut].left
            return (0.0, around) if shortcut == 1 else (around, 0.0)
        steps = [a.right + BESIDE + b.left for a, b in pairwise(sizes)]
        axes = list(accumulate(steps, initial=sizes[0].left))
        middle = (axes[-1] + sizes[-1].right) / 2
        return tuple(axis - middle for axis in axes)

    # Where they stand.

    def chain(self, chain: Chain | More, x: float, y: float, lead: Line, tail: Line) -> None:
        """Place a chain below (x, y); its first line comes by way of `lead`, its last goes on to `tail`."""
        if isinstance(chain, More):
            middle = (y + tail[-1][1]) / 2
            self.page.notes += [(x, middle - 8, "•  •  •"), (x, middle + 8, f"{chain.count} in all")]
            return
        for i, item in enumerate(chain.items):
            size, is_last = self.of_item(chain, i), i == len(chain.items) - 1
            if isinstance(item, Fork):
                self.fork(chain, i, x, y, tail[-1][1] if is_last else y + size.height + GAP)
            else:
                if lead:
                    self.page.lines.append([*lead, (x, y + GAP)])
                self.page.rects.append(Rect(item, x - size.left, y + GAP, size.left + size.right, size.height - GAP))
            y += size.height
            lead = [] if isinstance(item, Fork) else [(x, y)]  # a fork leads its own lines to the next box
        if lead and tail:
            self.page.lines.append([*lead, *tail])

    def fork(self, chain: Chain, i: int, x: float, y: float, bottom: float) -> None:
        item, shortcut = chain.items[i], self.shortcut(chain, i)
        assert isinstance(item, Fork)
        for k, (offset, branch) in enumerate(zip(self.offsets(chain, i), item.branches, strict=True)):
            at = x + offset
            lead, tail = [(at, y)], [(at, bottom)]
            if k == shortcut:  # out of the side of the box above, into the side of the box below
                above, below = self.of_item(chain, i - 1), self.of_item(chain, i + 1)
                leave, enter = y - (above.height - GAP) / 2, bottom + (below.height - GAP) / 2
                lead, tail = [(x + above.right, leave), (at, leave)], [(at, enter), (x + below.right, enter)]
            if branch == Chain(()):
                self.page.notes.append((at + NOTE / 2 - 2, (y + bottom) / 2, IDENTITY))
            self.chain(branch, at, y, lead, tail)
