"""Claim U2 judged: are pixels highly correlated, and channels fairly independent, in most layers of every network?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .layers import CURVE, Row, mean
from .ledger import FAILS, HOLDS, NOT_SHOWN
from .recipe import Finding
from .verdict import Interval, bootstrap_of, in_most

PIXELS, CHANNELS = 0.5, 0.3  # r of neighbours above, mean |r| of channels below
NETWORKS = 2  # below which nothing is shown

Networks = Mapping[str, Sequence[Row]]  # name -> its layers, as `layers.over_seeds` makes them


def finding(networks: Networks) -> Finding:
    near = {name: in_most([r > PIXELS for r in _known(rows, "neighbours")]) for name, rows in networks.items()}
    apart = {name: in_most([r < CHANNELS for r in _known(rows, "across")]) for name, rows in networks.items()}
    pixels, channels = (_together([verdict for verdict, _ in half.values()]) for half in (near, apart))
    told = [
        "{} {} and {}, by chance {:.2f}".format(
            name, *(_mean(layers, what) for what in ("neighbours", "across")), mean(_known(layers, "chance")) or 0
        )
        for name, layers in networks.items()
    ]
    says = (
        f"Pixels highly correlated: {pixels}. Channels fairly independent: {channels}. Mean over layers of r one pixel "
        f"on, and of |r| of two channels: {'; '.join(told)}."
    )
    whole = HOLDS if pixels == channels == HOLDS else FAILS if FAILS in (pixels, channels) else NOT_SHOWN
    table = [*_pixel_rows(networks, near), *_channel_rows(networks, apart)]
    charts = [
        _chart(networks, "neighbours", "r, one pixel on", {"highly correlated": PIXELS}),
        _chart(networks, "across", "mean |r| of channels", {"fairly independent": CHANNELS}),
    ]
    return Finding("U2", whole, says, table, charts)


def _together(verdicts: Sequence[str]) -> str:
    if len(verdicts) < NETWORKS:
        return NOT_SHOWN
    if all(v == HOLDS for v in verdicts):
        return HOLDS
    return FAILS if 2 * sum(v == FAILS for v in verdicts) >= len(verdicts) else NOT_SHOWN


def _pixel_rows(networks: Networks, judged: Mapping[str, tuple[str, Interval | None]]) -> list[dict[str, Any]]:
    return [
        {"network": name, "layers": len(_known(layers, "neighbours"))}
        | {"r at 1 px": _mean(layers, "neighbours")}
        | {f"r at {d} px": mean([row["curve"][d] for row in layers]) for d in CURVE[1:]}
        | {f"layers above {PIXELS:g}": str(judged[name][1] or ""), "pixels highly correlated": judged[name][0]}
        for name, layers in networks.items()
    ]


def _channel_rows(networks: Networks, judged: Mapping[str, tuple[str, Interval | None]]) -> list[dict[str, Any]]:
    names = {"chance": "by chance", "dimensions_share": "dimensions per channel"}
    kernels = {"intra": "intra-kernel correlation", "intra_chance": "of random kernels"}
    return [
        {"network": name, "layers": len(_known(layers, "across"))}
        | {"mean |r| of channels": _mean(layers, "across")}
        | {title: mean(_known(layers, what)) for what, title in names.items()}
        | {title: _mean(layers, what) for what, title in kernels.items()}
        | {f"layers below {CHANNELS:g}": str(judged[name][1] or ""), "channels fairly independent": judged[name][0]}
        for name, layers in networks.items()
    ]


def _chart(networks: Networks, what: str, title: str, line: Mapping[str, float]) -> dict[str, Any]:
    points = {
        name: [(row["place"], row[what]) for row in rows if row[what] is not None] for name, rows in networks.items()
    }
    return {
        "kind": "curves",
        "title": f"What each convolution reads: {title}",
        "series": [{"name": n, "points": [[x, y, y, y] for x, y in found]} for n, found in points.items() if found],
        "lines": [{"name": name, "at": at} for name, at in line.items()],
        "x": "place in the network: 0 its first convolution, 1 its last",
        "y": title,
    }


def _known(layers: Sequence[Row], what: str) -> list[float]:
    return [row[what] for row in layers if row[what] is not None]


def _mean(layers: Sequence[Row], what: str) -> str:
    """Of all layers, with its interval from resampling them."""
    found = _known(layers, what)
    return str(bootstrap_of(found)) if len(found) > 1 else ""
