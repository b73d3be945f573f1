"""What there is to separate in a model: every convolution, its energy in each form, and a verdict with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..factor import FORMS, MatrixForm, Rank
from ..factor.spatial import Spatial
from ..geometry import ConvShape
from .cost import CONVENTION, Cost, tally
from .separability import energy_curve, spatial_rank
from .trace import Convolution, Example, run
from .verdict import CAVEAT, Candidate, Verdict, at_energy, at_saving, form_today, judge

RANKS = (1, 2, 3, 4)
TOLERANCE = 0.01  # of a kernel's energy: what it may lose and still count as of that spatial rank
ITERATIVE_WEIGHTS = 2_500  # cp and tucker have no closed form: 13 s for 512×512×3×3, below 0.1 s at this size


@dataclass(frozen=True)
class Layer:
    """One convolution of a model.

    name                    of its parameter, without a final ".weight"
    form_today              "dense", "depthwise", "pointwise", "spatial 3×1", "grouped, 4 groups" ...
    conv, size              its shape, and the spatial size of its input
    macs, macs_share        of all its calls on the example, and their share in the model's
    energy                  form -> rank -> share of the weight's energy kept; at ranks 1 to 4, as far as they exist
    skipped                 form -> why it was not tried
    spatial_rank            mean over single kernels of the rank that loses at most 1 % of the energy; None without
    rank_one_share          share of single kernels that are spatially separable, to the same 1 %
    arithmetic_intensity    MACs per byte moved, today; best_intensity that of the best candidate's steps
    best                    the cheapest form that keeps nine tenths of the energy; None when no form exists
    """

    name: str
    form_today: str
    conv: ConvShape
    size: tuple[int, ...]
    calls: int
    macs: int
    macs_share: float
    arithmetic_intensity: float
    verdict: Verdict
    energy: dict[str, dict[int, float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    spatial_rank: float | None = None
    rank_one_share: float | None = None
    best: Candidate | None = None
    best_intensity: float | None = None

    def to_dict(self) -> dict[str, Any]:
        geometry = self.conv.geometry
        return {
            "name": self.name,
            "form_today": self.form_today,
            "weight_shape": list(self.conv.weight_shape),
            "groups": self.conv.groups,
            "stride": list(geometry.stride),
            "input_size": list(self.size),
            "output_size": list(geometry.output_size(self.size)),
            "calls": self.calls,
            "parameters": self.conv.parameters,
            "macs": self.macs,
            "macs_share": self.macs_share,
            "energy": {form: {str(r): kept for r, kept in ranks.items()} for form, ranks in self.energy.items()},
            "skipped": self.skipped,
            "spatial_rank": self.spatial_rank,
            "rank_one_share": self.rank_one_share,
            "arithmetic_intensity": self.arithmetic_intensity,
            "best": self.best.to_dict() if self.best else None,
            "best_arithmetic_intensity": self.best_intensity,
            "verdict": self.verdict.verdict,
            "reason": self.verdict.reason,
        }


@dataclass(frozen=True)
class Inspection:
    """Every convolution of a model on one example, and the totals.

    not_inspected    convolutions seen but left out, as sentences: their weight is no parameter, or they are transposed
    weights          the inspected weights by layer name, for pictures of kernels
    """

    layers: tuple[Layer, ...]
    cost: Cost
    not_inspected: tuple[str, ...]
    weights: dict[str, Tensor] = field(repr=False)

    @property
    def verdicts(self) -> dict[str, int]:
        return dict(Counter(layer.verdict.verdict for layer in self.layers))

    @property
    def macs_after(self) -> int:
        """Multiply-accumulates if every layer worth separating took its best form, the others staying."""
        saved = sum(
            layer.macs * (1 - 1 / layer.best.fewer)
            for layer in self.layers
            if layer.best and layer.verdict.verdict == "separate"
        )
        return round(self.cost.macs - saved)

    def total(self) -> dict[str, Any]:
        """The totals as plain types."""
        return {
            "convolutions": len(self.layers),
            "parameters": self.cost.parameters,
            "macs": self.cost.macs,
            "macs_in_convolutions": sum(layer.macs for layer in self.layers),
            "macs_if_separated": self.macs_after,
            "arithmetic_intensity": self.cost.arithmetic_intensity,
            "verdicts": self.verdicts,
            "not_inspected": list(self.not_inspected),
            "unsupported": self.cost.unsupported,
            "caveat": CAVEAT,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain types: "layers" and "total"."""
        return {"layers": [layer.to_dict() for layer in self.layers], "total": self.total()}

    def __str__(self) -> str:
        width = max([len("convolution"), *(len(layer.name) for layer in self.layers)])
        head = f"{'convolution':<{width}}  {'today':<12} {'weight':<14} {'output':<12} {'MACs':>14} {'share':>6}"
        lines = [f"{head} {'rank':>5} {'MACs/B':>6}"]
        for layer in self.layers:
            lines += _layer_lines(layer, width)
        found = ", ".join(f"{count} {verdict}" for verdict, count in self.verdicts.items())
        lines += [
            "",
            f"{len(self.layers)} convolutions: {found or 'nothing to separate'}.",
            f"{self.cost.parameters:,} parameters, {self.cost.macs:,} MACs; {self.macs_after:,} if every layer marked "
            "separate took its form.",
            *(f"Not inspected: {sentence}." for sentence in self.not_inspected),
            self.cost.not_counted(),
            CONVENTION,
            "rank: mean over single kernels, of the pairs N×1·1×N that lose at most 1 % of a kernel's energy.",
            CAVEAT,
        ]
        return "\n".join(lines)


def inspect(model: nn.Module, example: Example, iterative: bool = False) -> Inspection:
    """Look at every convolution of a model: what it is, what it costs, how separable its weight is, what to do.

    Each convolution that runs on the example is seen: of a module, a functional call or an exported graph.
    model        any module; it runs once in evaluation mode and is left as it was
    example      a tensor, or the tuple of positional arguments
    iterative    True: also the forms cp and tucker on large weights, which takes seconds for each
    Raises ModelError when the model cannot run on the example.

    >>> sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    >>> conv = nn.Conv2d(8, 8, 3, bias=False)
    >>> conv.weight.data = torch.outer(torch.arange(1.0, 9), torch.arange(1.0, 9))[:, :, None, None] * sobel
    >>> layer = inspect(nn.Sequential(conv), torch.zeros(1, 8, 10, 10)).layers[0]
    >>> layer.verdict.reason
    'spatial rank 1 keeps 100 % of the energy at 10.7 times fewer MACs'
    """
    seen = run(model, example)
    cost = tally(model, seen)
    found: dict[str, list[tuple[Convolution, int, int]]] = {}
    not_inspected = []
    for call in seen.calls:
        convolution = call.convolution
        if convolution is None:
            continue
        reason = _why_not(convolution)
        if reason or convolution.name is None:
            place = f" in {call.within[-1]!r}" if call.within and call.within[-1] else ""
            shape = "×".join(map(str, convolution.weight.shape))
            not_inspected.append(f"a convolution with a weight {shape}{place}: {reason}")
            continue
        found.setdefault(convolution.name, []).append((convolution, call.macs or 0, call.bytes_moved))
    with _one_thread():
        layers = tuple(_layer(name, calls, cost.macs, iterative) for name, calls in found.items())
    weights = {name: calls[0][0].weight.detach() for name, calls in found.items()}
    return Inspection(layers, cost, tuple(not_inspected), weights)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for many small decompositions: several wait for each other (resnet18, busy machine: 61 s, not 5)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _why_not(convolution: Convolution) -> str | None:
    if convolution.transposed:
        return "it is transposed, and no form stands for that"
    if convolution.name is None:
        return "its weight is computed on the way, not a parameter"
    return None


def _layer(name: str, calls: Sequence[tuple[Convolution, int, int]], total: int, iterative: bool) -> Layer:
    convolution = calls[0][0]
    conv, size, weight = convolution.conv, convolution.size, convolution.weight.detach()
    macs, moved = sum(c[1] for c in calls), sum(c[2] for c in calls)
    facts: dict[str, Any] = {
        "name": name,
        "form_today": form_today(conv),
        "conv": conv,
        "size": size,
        "calls": len(calls),
        "macs": macs,
        "macs_share": macs / total if total else 0.0,
        "arithmetic_intensity": macs / moved if moved else 0.0,
    }
    if not bool(weight.isfinite().all()):
        return Layer(**facts, verdict=Verdict("leave", "its weight holds NaN or infinite values; mend it first"))
    if set(conv.geometry.kernel) == {1}:
        return Layer(**facts, verdict=judge(conv, [], []))
    curves, energy, skipped = _curves(conv, weight, iterative)
    enough = [at_energy(conv, size, form, curve) for form, curve in curves.items()]
    cheap = [c for form, curve in curves.items() if (c := at_saving(conv, size, form, curve))]
    best = max(enough, key=lambda c: c.fewer, default=None)
    ranks = None if conv.geometry.axes < 2 else spatial_rank(weight, TOLERANCE).double()
    return Layer(
        **facts,
        verdict=judge(conv, enough, cheap),
        energy=energy,
        skipped=skipped,
        spatial_rank=None if ranks is None else float(ranks.mean()),
        rank_one_share=None if ranks is None else float((ranks <= 1).double().mean()),
        best=best,
        best_intensity=_intensity(convolution, best) if best else None,
    )


def _curves(
    conv: ConvShape, weight: Tensor, iterative: bool
) -> tuple[dict[str, list[float]], dict[str, dict[int, float]], dict[str, str]]:
    """Energy at every rank of the forms with a closed answer; at RANKS of all forms; and why others were skipped."""
    curves: dict[str, list[float]] = {}
    energy: dict[str, dict[int, float]] = {}
    skipped: dict[str, str] = {}
    for name, form in FORMS.items():
        reason = form.why_not(conv)
        if not reason and conv.in_channels == conv.groups and not isinstance(form, Spatial):
            reason = "every output sees one channel already"
        is_closed = isinstance(form, MatrixForm)
        if not reason and not is_closed and not iterative and weight.numel() > ITERATIVE_WEIGHTS:
            reason = "no closed form, and the weight is large: iterative=True takes the seconds it needs"
        if reason:
            skipped[name] = reason
        elif is_closed:
            curves[name] = energy_curve(weight, name, conv.groups)
            energy[name] = dict(zip(RANKS, curves[name], strict=False))
        else:
            full = form.full_rank(conv)
            most = max(full) if isinstance(full, tuple) else full
            ranks = [r for r in RANKS if r <= most]
            asked: list[Rank] = [(min(r, full[0]), min(r, full[1])) if isinstance(full, tuple) else r for r in ranks]
            energy[name] = dict(zip(ranks, energy_curve(weight, name, conv.groups, asked), strict=True))
    return curves, energy, skipped


def _intensity(convolution: Convolution, candidate: Candidate) -> float:
    """MACs per byte when each step of the candidate reads its input and weight once and writes its output once."""
    size, numbers, macs = convolution.size, 0, 0
    for step in FORMS[candidate.form].steps(convolution.conv, candidate.rank):
        out = step.geometry.output_size(size)
        macs += step.macs(size) * convolution.batch
        activations = step.in_channels * prod(size) + step.out_channels * prod(out)
        numbers += step.parameters + convolution.batch * activations
        size = out
    return macs / (numbers * convolution.weight.element_size())


def _layer_lines(layer: Layer, width: int) -> list[str]:
    conv = layer.conv
    shape = "×".join(map(str, conv.weight_shape))
    output = "×".join(map(str, (*conv.geometry.output_size(layer.size), conv.out_channels)))
    rank = "" if layer.spatial_rank is None else f"{layer.spatial_rank:.2f}"
    lines = [
        f"{layer.name:<{width}}  {layer.form_today:<12} {shape:<14} {output:<12} {layer.macs:>14,} "
        f"{100 * layer.macs_share:>5.1f}% {rank:>5} {layer.arithmetic_intensity:>6.1f}"
    ]
    kept = [
        f"{form} {' '.join(f'{100 * share:.0f}' for share in ranks.values())}" for form, ranks in layer.energy.items()
    ]
    if kept:
        lines.append(f"    energy kept, % at ranks {RANKS[0]} to {RANKS[-1]}: {'; '.join(kept)}")
    better = ""
    if layer.best_intensity is not None and layer.verdict.verdict == "separate":
        better = f" ({layer.best_intensity:.1f} MACs a byte)"
    return [*lines, f"    {layer.verdict.verdict}: {layer.verdict.reason}{better}"]
