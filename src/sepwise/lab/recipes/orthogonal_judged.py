"""What the trials of `orthogonal` say about claim U1: the verdict with its reason, the tables and the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..ledger import FAILS, HOLDS, NOT_SHOWN
from ..recipe import Finding, Numbers, Result

EXPRESSIBLE, DENSE = "expressible", "dense"
ONE, BEFORE, TWO, RELU = "one layer", "1×1 before", "two layers", "two layers, ReLU"
ENOUGH = 3  # seeds
KINDS = ("vertical", "horizontal", "diagonal")
LEARNED = 5.0  # percent: who misses less has learned the filters
NOISE, GRAY, PHOTOS = ("every", "white"), ("every", "gray"), ("every", "pictures")
NAMES = {
    ONE: "one layer, multiplier {}",
    BEFORE: "1×1 to {} before it",
    TWO: "separable to {} before it",
    RELU: "separable to {}, ReLU, before it",
    DENSE: "dense layer",
    "white": "noise",
    "gray": "gray noise",
    "pictures": "CIFAR-10",
    "every": "every channel alike",
    "own": "a channel of its own",
    "weighted": "every channel, by weights",
}
REASONS = {
    FAILS: "For one input channel the claim is right: more pointwise kernels add nothing. For a layer it is wrong.",
    HOLDS: "One kind of feature is all that a layer learns.",
    NOT_SHOWN: "Too little to decide.",
}


@dataclass(frozen=True)
class _Fit:
    """All trials of one arm."""

    settings: Mapping[str, Any]
    trials: list[Numbers]

    def _values(self, what: str, count: int) -> list[float]:
        return [trial[what][trial["filters"].index(count)] for trial in self.trials]

    def missed(self, count: int) -> tuple[float, float, float]:
        """Mean, least and most over the seeds."""
        values = self._values("missed", count)
        return sum(values) / len(values), min(values), max(values)

    def bound(self, count: int) -> float:
        return sum(self._values("bound", count)) / len(self.trials)

    def excess(self) -> float:
        """The most that any trial misses beyond its bound, in percent of the energy wanted."""
        return max(m - b for trial in self.trials for m, b in zip(trial["missed"], trial["bound"], strict=True))

    def multiplications(self, count: int) -> int:
        return int(self._values("multiplications", count)[0])

    @property
    def bounded(self) -> bool:
        return bool(self.trials[0]["bound"])

    @property
    def exact(self) -> bool:
        """Whether its bound is one that can be reached."""
        return self.bounded and self.settings["inputs"] != "pictures"

    @property
    def counts(self) -> list[int]:
        return self.trials[0]["filters"]

    @property
    def name(self) -> str:
        return NAMES[self.settings["network"]].format(self.settings["width"])


Fits = Mapping[tuple[Any, ...], _Fit]  # by network, width, reads, inputs


def judged(results: Sequence[Result], arms: Mapping[str, Mapping[str, Any]]) -> Finding:
    """The finding from the trials there are; `arms` are all that should be there, by name."""
    found = {name: [r.numbers for r in results if r.arm == name] for name in arms}
    missing = [name for name, trials in found.items() if not trials]
    if missing:
        return Finding("U1", NOT_SHOWN, f"{len(missing)} of {len(arms)} arms have no trial: {'; '.join(missing)}.")
    exact = found.pop(EXPRESSIBLE)
    keys = ("network", "width", "reads", "inputs")
    fits = {tuple(arms[name][key] for key in keys): _Fit(arms[name], trials) for name, trials in found.items()}
    enough = min(len(trials) for trials in [exact, *found.values()]) >= ENOUGH
    verdict = _verdict(fits) if enough and all(_as_said(exact)) else NOT_SHOWN
    table = [*map(_layer, exact[0]["layers"]), *_bounds(exact[0]), *map(_row, fits.values())]
    return Finding("U1", verdict, f"{REASONS[verdict]} {_says(exact, fits)}", table, _figures(fits))


def _several(fits: Fits) -> list[_Fit]:
    """One layer with one filter for each channel, where it could yet learn several kinds."""
    return [fits[(ONE, 1, *place)] for place in (("own", "white"), GRAY, PHOTOS)]


def _verdict(fits: Fits) -> str:
    """The claim as it stands fails when a layer with one filter for each channel learns all of KINDS, with any seed."""
    missed = [fit.missed(len(KINDS)) for fit in _several(fits)]
    one_kind = fits[(ONE, 1, *NOISE)].bound(len(KINDS))
    if max(most for _, _, most in missed) < LEARNED < one_kind:
        return FAILS
    return HOLDS if min(least for _, least, _ in missed) > one_kind - LEARNED else NOT_SHOWN


def _said(layer: Mapping[str, Any]) -> dict[str, int]:
    """What the formulas give a layer: a product of rank r has r (outputs + K² - r) free numbers, for each channel."""
    channels, outputs, positions = layer["channels"], layer["outputs"], layer["size"] ** 2
    rank = min(layer["multiplier"] or positions, positions, outputs)
    return {
        "one channel": rank,
        "alike channels": min(channels * rank, positions, outputs),
        "dimensions": channels * rank * (outputs + positions - rank),
    }


def _as_said(exact: Sequence[Numbers]) -> list[bool]:
    """For each random layer whether its ranks are those of the formulas."""
    layers = [layer for trial in exact for layer in trial["layers"]]
    return [all(layer[name] == value for name, value in _said(layer).items()) for layer in layers]


def _says(exact: Sequence[Numbers], fits: Fits) -> str:
    return f"{_one_channel(exact, fits)} {_many_channels(fits)} {_other_ways(fits)}"


def _one_channel(exact: Sequence[Numbers], fits: Fits) -> str:
    right = _as_said(exact)
    one, three, kinds = fits[(ONE, 1, *NOISE)], fits[(ONE, 3, *NOISE)], len(KINDS)
    excess = max(fit.excess() for fit in fits.values() if fit.exact)
    return (
        "All outputs of a layer together apply m filters to one input channel, m being its depth multiplier, however "
        f"many pointwise kernels there are: ranks are as the formulas say in {sum(right)} of {len(right)} random "
        f"layers. Trained to filter three independent channels of noise alike, a layer with m = 1 misses "
        f"{one.missed(kinds)[0]:.1f} % of the energy of {', '.join(KINDS)} edges (no layer can miss less than "
        f"{one.bound(kinds):.1f} %) and {one.missed(9)[0]:.1f} % of nine filters; with m = 3 "
        f"{three.missed(kinds)[0]:.1f} % and {three.missed(9)[0]:.1f} %. Training ends at most {excess:.1g} points "
        "above the exact bounds."
    )


def _many_channels(fits: Fits) -> str:
    own, gray, photos = _several(fits)
    kinds, alike = len(KINDS), sum(trial["alike"] for trial in photos.trials) / len(photos.trials)
    return (
        "But C channels have C·m filters, and pointwise kernels combine them: of the three edges a layer with m = 1 "
        f"misses {own.missed(kinds)[0]:.2f} % on noise where each output reads a channel of its own, "
        f"{gray.missed(kinds)[0]:.2f} % on gray noise and {photos.missed(kinds)[0]:.2f} % on CIFAR-10, whose channels "
        f"are alike (correlation {alike:.2f}); of five filters {photos.missed(5)[0]:.1f} % there, of nine "
        f"{photos.missed(9)[0]:.1f} %."
    )


def _other_ways(fits: Fits) -> str:
    ways = [fits[(*way, *NOISE)] for way in ((ONE, 3), (BEFORE, 3), (BEFORE, 9), (TWO, 9), (RELU, 9), (DENSE, 1))]
    said = "; ".join(f"{way.name}: {way.missed(9)[0]:.1f} % ({way.multiplications(9)})" for way in ways)
    return f"Missed of nine filters on noise, and multiplications a pixel, with {said}."


def _layer(layer: Mapping[str, Any]) -> dict[str, Any]:
    said, dense = _said(layer), layer["channels"] * layer["outputs"] * layer["size"] ** 2
    return {
        "channels": layer["channels"],
        "outputs": layer["outputs"],
        "kernel": f"{layer['size']}×{layer['size']}",
        "m": layer["multiplier"] or DENSE,
        "filters on one channel (formula)": f"{layer['one channel']} ({said['one channel']})",
        "on channels that are alike": f"{layer['alike channels']} ({said['alike channels']})",
        "dimensions of what it can be": f"{layer['dimensions']:,} ({said['dimensions']:,})",
        "of a dense layer": f"{dense:,}",
    }


def _bounds(exact: Numbers) -> list[dict[str, Any]]:
    """What must be missed on noise: rows of m, columns of the number of filters."""
    return [
        {"bound on noise": f"m = {m}"} | {f"{n} filters" if n > 1 else "1 filter": f"{v:.1f} %" for n, v in columns}
        for m, columns in ((m, enumerate(row, start=1)) for m, row in enumerate(exact["bounds"], start=1))
    ]


def _row(fit: _Fit) -> dict[str, Any]:
    """What the trained networks missed and, in brackets, the bound, for some numbers of filters."""
    row: dict[str, Any] = {"input": NAMES[fit.settings["inputs"]], "outputs read": NAMES[fit.settings["reads"]]}
    row |= {"network": fit.name, "multiplications": fit.multiplications(9)}
    for count in (2, 3, 5, 9):
        bound = f" ({fit.bound(count):.2f})" if fit.bounded and count in fit.counts else ""
        row[f"missed of {count} (bound)"] = f"{fit.missed(count)[0]:.2f} %{bound}" if count in fit.counts else None
    return row


def _figures(fits: Fits) -> list[dict[str, Any]]:
    return [
        _curves(fits, NOISE, "Three independent channels of noise, filtered alike: trained layers (dots), exact bound"),
        _curves(fits, PHOTOS, "CIFAR-10, all channels filtered alike: trained layers (dots), lower bound"),
        _kernels(fits),
        _costs(fits, NOISE, "Nine filters on every channel of noise; shaded from the best seed to the worst"),
        _costs(fits, PHOTOS, "Nine filters on every channel of CIFAR-10; shaded from the best seed to the worst"),
    ]


def _curves(fits: Fits, place: tuple[str, str], title: str) -> dict[str, Any]:
    """What is missed against the number of filters."""
    series = []
    for colour, fit in enumerate(fit for key, fit in fits.items() if (key[0], *key[2:]) == (ONE, *place)):
        bound, missed = ([[n, *[fit.bound(n)] * 3] for n in fit.counts], [[n, *fit.missed(n)] for n in fit.counts])
        series.append({"name": "", "only": "line", "colour": colour, "points": bound})
        series.append(
            {"name": f"multiplier {fit.settings['width']}", "only": "dots", "colour": colour, "points": missed}
        )
    return {"kind": "curves", "title": title, "series": series, "x": "different filters", "y": "energy missed, %"}


def _kernels(fits: Fits) -> dict[str, Any]:
    """The dense kernels that a layer with m = 1 and three outputs stands for, and their sum over the channels."""
    rows = []
    for place in (NOISE, PHOTOS):
        for kind, planes in zip(KINDS, fits[(ONE, 1, *place)].trials[0]["kernels"], strict=True):
            total = [[sum(values) for values in zip(*lines, strict=True)] for lines in zip(*planes, strict=True)]
            rows.append({"name": f"{NAMES[place[1]]}, {kind}", "planes": [*planes, total]})
    title = "One layer with multiplier 1 that was to learn three edges: its kernels on each channel, and their sum"
    return {"kind": "kernels", "title": title, "columns": ["red", "green", "blue", "sum"], "rows": rows}


def _costs(fits: Fits, place: tuple[str, str], title: str) -> dict[str, Any]:
    """What is missed of nine filters against multiplications, for each way to spend them."""
    series: dict[str, list[list[float]]] = {}
    widths: dict[str, list[str]] = {}
    for (network, width, *at), fit in fits.items():
        if tuple(at) == place:
            series.setdefault(network, []).append([fit.multiplications(9), *fit.missed(9)])
            widths.setdefault(network, []).append(str(width))
    return {
        "kind": "curves",
        "title": title,
        "series": [{"name": NAMES[n].format(", ".join(widths[n])), "points": points} for n, points in series.items()],
        "x": "multiplications for each pixel",
        "y": "energy missed, %",
    }
