"""Boxes and arrows as chains within forks within chains, the shape in which they can be drawn without crossings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UnsupportedError

SHOWN = 4  # parallel branches that are alike: so many are drawn, more are counted


@dataclass(frozen=True)
class Fork:
    """Branches that leave one box and meet again in another; an empty chain goes there straight."""

    branches: tuple[Chain | More, ...]


@dataclass(frozen=True)
class Chain:
    """Numbers of boxes and forks, one after the other."""

    items: tuple[int | Fork, ...]

    @property
    def boxes(self) -> int:
        """How many boxes one passes on the longest way."""
        return sum(1 if isinstance(i, int) else max(b.boxes for b in i.branches) for i in self.items)


@dataclass(frozen=True)
class More:
    """In the place of branches like the ones beside it: how many there are, those beside it included."""

    count: int
    boxes: int = 0


def nested(boxes: Sequence[Mapping[str, Any]], arrows: Iterable[Sequence[int]]) -> Chain:
    """The nesting of a diagram with one beginning and one end.

    boxes     in an order in which no arrow points back; equal boxes are alike
    arrows    pairs (from, to) of numbers of boxes
    Raises UnsupportedError when branches touch each other between the box they leave and the box they meet in.

    >>> nested([{}, {}, {}], [(0, 1), (1, 2), (0, 2)])
    Chain(items=(0, Fork(branches=(Chain(items=(1,)), Chain(items=()))), 2))
    """
    after: list[list[int]] = [[] for _ in boxes]
    for start, end in arrows:
        after[start].append(end)
    return _Nesting(boxes, after).chain(0, None)


class _Nesting:
    def __init__(self, boxes: Sequence[Mapping[str, Any]], after: list[list[int]]) -> None:
        self.boxes, self.after = boxes, after
        self.certain: list[set[int]] = [set() for _ in boxes]  # those that every way from here to the end passes
        for number in reversed(range(len(boxes))):
            ways = [self.certain[n] for n in after[number]]
            self.certain[number] = {number} | (set.intersection(*ways) if ways else set())

    def chain(self, start: int, stop: int | None) -> Chain:
        """From `start` on, as far as `stop`, which is not part of it."""
        items: list[int | Fork] = []
        here: int | None = start
        while here is not None and here != stop:
            items.append(here)
            following = self.after[here]
            if len(following) > 1:
                here = self.meeting(following)
                items.append(self.fork(following, here))
            else:
                here = following[0] if following else None
        return Chain(tuple(items))

    def fork(self, starts: Sequence[int], stop: int) -> Fork:
        branches = []
        for group in self.touching(starts, stop):
            if len(group) == 1:
                branches.append(self.chain(group[0], stop))
                continue
            meeting = self.meeting(group)
            if meeting == stop:
                raise UnsupportedError(
                    f"the branches to the boxes {', '.join(map(str, group))} touch each other on the way to {stop}; "
                    "only branches that meet in one box can be drawn"
                )
            branches.append(Chain((self.fork(group, meeting), *self.chain(meeting, stop).items)))
        return Fork(tuple(self.shortened(branches)))

    def meeting(self, starts: Sequence[int]) -> int:
        """The first box that all ways from these boxes pass."""
        return min(set.intersection(*(self.certain[start] for start in starts)))

    def touching(self, starts: Sequence[int], stop: int) -> list[list[int]]:
        """The branches in groups that share no box with each other before `stop`."""
        groups: list[tuple[list[int], set[int]]] = []
        for start in starts:
            group, reached = [start], self.reached(start, stop)
            for other in [g for g in groups if g[1] & reached]:
                groups.remove(other)
                group, reached = other[0] + group, other[1] | reached
            groups.append((group, reached))
        return [group for group, _ in sorted(groups, key=lambda g: starts.index(g[0][0]))]

    def reached(self, start: int, stop: int) -> set[int]:
        found, waiting = set(), [start]
        while waiting:
            here = waiting.pop()
            if here != stop and here not in found:
                found.add(here)
                waiting += self.after[here]
        return found

    def shortened(self, branches: Sequence[Chain]) -> list[Chain | More]:
        """Runs of more than SHOWN branches that are alike: the first two, how many there are, the last."""
        runs: list[list[Chain]] = []
        for branch in branches:
            alike = runs and self.looks(runs[-1][0]) == self.looks(branch)
            runs[-1].append(branch) if alike else runs.append([branch])
        shown: list[Chain | More] = []
        for run in runs:
            shown += run if len(run) <= SHOWN else [*run[:2], More(len(run)), run[-1]]
        return shown

    def looks(self, item: Any) -> Any:
        """What is equal for branches that are alike."""
        if isinstance(item, int):
            return self.boxes[item]
        return (
            [self.looks(i) for i in item.items]
            if isinstance(item, Chain)
            else ([self.looks(b) for b in item.branches] if isinstance(item, Fork) else item)
        )
