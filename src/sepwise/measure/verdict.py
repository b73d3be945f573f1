"""Is a convolution worth separating? A verdict from its shape and its weight, with the reason in one sentence."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..factor import Rank, form_named
from ..geometry import ConvShape, chain_macs

CAVEAT = (
    "A verdict rests on the weight's energy alone, which misleads at low ranks: what counts is the error on real "
    "inputs. `sepwise convert` fits each layer to pictures and measures; that is the answer."
)

ENERGY_ENOUGH = 0.9  # a tenth of the energy lost is an error of about a third for inputs that are noise: the most a fit
# to real inputs was seen to repair well (trained HED keeps 0.90 to 0.997 at half the MACs, random weights 0.5 to 0.6)
FEWER_ENOUGH = 2.0  # below, the memory traffic of a second step eats what the multiplications save
FEW_CHANNELS = 4  # a stem sees three: little to save in the whole network, and every later layer depends on it


@dataclass(frozen=True)
class Candidate:
    """One form at one rank: the share of energy it keeps and its multiply-accumulates for one input."""

    form: str
    rank: Rank
    energy_kept: float
    macs: int
    fewer: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "form": self.form,
            "rank": self.rank,
            "energy_kept": self.energy_kept,
            "macs": self.macs,
            "times_fewer_macs": self.fewer,
        }


@dataclass(frozen=True)
class Verdict:
    """verdict: "separate", "leave" or "doubtful"; reason: why, in one sentence."""

    verdict: str
    reason: str


def form_today(conv: ConvShape) -> str:
    """What a convolution already is.

    >>> from ..geometry import Geometry
    >>> kinds = [((3, 3), 1), ((3, 3), 8), ((1, 1), 1), ((3, 1), 1)]
    >>> [form_today(ConvShape(8, 8, Geometry.of(k), g)) for k, g in kinds]
    ['dense', 'depthwise', 'pointwise', 'spatial 3×1']
    """
    kernel = conv.geometry.kernel
    if set(kernel) == {1}:
        return "pointwise" if conv.groups == 1 else f"pointwise, {conv.groups} groups"
    if conv.groups == conv.in_channels > 1:
        return "depthwise"
    if len(kernel) > 1 and 1 in kernel:
        return "spatial " + "×".join(map(str, kernel))
    return "dense" if conv.groups == 1 else f"grouped, {conv.groups} groups"


def at_energy(conv: ConvShape, size: Sequence[int], form: str, curve: Sequence[float]) -> Candidate:
    """The smallest rank that keeps ENERGY_ENOUGH. curve: energy kept at ranks 1, 2, ... up to the full one."""
    return _candidate(conv, size, form, min(len(curve), bisect_left(curve, ENERGY_ENOUGH) + 1), curve)


def at_saving(conv: ConvShape, size: Sequence[int], form: str, curve: Sequence[float]) -> Candidate | None:
    """The largest rank with FEWER_ENOUGH times fewer multiplications; None when rank 1 already takes more."""
    most = conv.macs(size) / FEWER_ENOUGH
    ranks = range(1, len(curve) + 1)
    rank = bisect_right(ranks, most, key=lambda r: chain_macs(form_named(form).steps(conv, r), size))
    return _candidate(conv, size, form, rank, curve) if rank else None


def _candidate(conv: ConvShape, size: Sequence[int], form: str, rank: int, curve: Sequence[float]) -> Candidate:
    macs = chain_macs(form_named(form).steps(conv, rank), size)
    return Candidate(form, rank, curve[rank - 1], macs, conv.macs(size) / macs)


def judge(conv: ConvShape, enough: Sequence[Candidate], cheap: Sequence[Candidate]) -> Verdict:
    """Weigh the candidates of all forms.

    enough    for each form, the cheapest rank that keeps ENERGY_ENOUGH
    cheap     for each form, the best rank at FEWER_ENOUGH times fewer multiplications
    """
    today, kernel = form_today(conv), "×".join(map(str, conv.geometry.kernel))
    if set(conv.geometry.kernel) == {1}:
        return Verdict("leave", "pointwise, nothing spatial to separate")
    if conv.in_channels // conv.groups <= FEW_CHANNELS and today != "depthwise":
        seen = f"{conv.in_channels // conv.groups} input channels" + (" a group" if conv.groups > 1 else "")
        return Verdict("leave", f"too few channels to separate: every output sees only {seen}")
    best = max(enough, key=lambda c: c.fewer, default=None)
    if best and best.fewer >= FEWER_ENOUGH:
        return Verdict(
            "separate",
            f"{best.form} rank {best.rank} keeps {_percent(best.energy_kept)} of the energy at {best.fewer:.1f} times "
            "fewer MACs",
        )
    if today == "depthwise":
        return Verdict("leave", f"already depthwise, and splitting its {kernel} kernels saves too little")
    if not cheap:
        return Verdict("leave", f"too small: no form halves the multiplications of this {kernel} kernel at any rank")
    kept = max(cheap, key=lambda c: c.energy_kept)
    return Verdict(
        "doubtful",
        f"energy is spread: at {kept.fewer:.1f} times fewer MACs the best form, {kept.form} rank {kept.rank}, keeps "
        f"{_percent(kept.energy_kept)}; it needs a data-aware fit",
    )


def _percent(share: float) -> str:
    """Rounded down: 99.9 % is not all of it."""
    return f"{int(100 * share + 1e-9)} %"
