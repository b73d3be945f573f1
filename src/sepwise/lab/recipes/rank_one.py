"""How many kernels of trained networks separate into a column times a row?

Claim A3. A kernel is N×1 times 1×N exactly when its rank is 1. The best such pair loses, of the kernel's energy,

    loss = 1 - s_1² / (s_1² + s_2² + ...)        s: singular values of the kernel as a matrix (Eckart-Young)

and a kernel separates within a tolerance t when loss <= t. All spatial kernels of a trained network are counted, each
as one, and then by energy (kernels near zero weigh nothing then). Beside them stand kernels of the same shapes drawn
from a normal distribution: "most do not" says little without what chance gives. A trial is one network and one draw;
its trained half is the same for every seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...measure.inspection import TOLERANCE
from ...measure.separability import rank_one_loss
from ..ledger import FAILS, HOLDS, NOT_SHOWN
from ..recipe import Arm, At, Finding, Numbers, Result
from ..trained import NAMES, trained
from ..verdict import mean_of

SEEDS = {"smoke": 1, "small": 5, "paper": 20}
ENOUGH = 3  # seeds
TOLERANCES = (0.001, 0.002, 0.005, TOLERANCE, 0.02, 0.05, 0.1, 0.2, 0.5)
TOLD = (TOLERANCE, 0.05, 0.1)  # in the text and the table; the first, which `inspect` uses too, decides
WAYS = ("by count", "by energy")
LARGE = ("hed",)  # 1.6 million kernels: not for a smoke test


def arms(scale: str) -> list[Arm]:
    return [Arm(name, {"network": name}) for name in NAMES if scale != "smoke" or name not in LARGE]


def trial(settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    """For each kind of kernel: how many there are and, at each of TOLERANCES, what share separates, in percent."""
    network = trained(settings["network"], at.inputs)
    random = torch.Generator().manual_seed(seed)
    return {
        kind: {
            "kernels": sum(w.shape[0] * w.shape[1] for w in weights),
            "trained": _shares(weights),
            "random": _shares(torch.randn(w.shape, generator=random) for w in weights),
        }
        for kind, weights in _by_kind(network).items()
    }


def findings(results: Sequence[Result]) -> list[Finding]:
    by_network = {name: [r.numbers for r in results if r.arm == name] for name in NAMES}
    groups = [
        _Group(name, kind, [numbers[kind] for numbers in trials])
        for name, trials in by_network.items()
        for kind in (trials[0] if trials else ())
    ]
    missing = [name for name, trials in by_network.items() if not trials]
    table = [_row(group) for group in groups]
    return [Finding("A3", _verdict(groups, missing), _says(groups, missing), table, _figures(groups))]


def _by_kind(network: nn.Module) -> dict[str, list[Tensor]]:
    """The weights of all convolutions whose kernels have two sides above 1: "3×3", "3×3 depthwise", ..."""
    found: dict[str, list[Tensor]] = {}
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and min(layer.kernel_size) > 1:
            size = "×".join(map(str, layer.kernel_size))
            kind = f"{size} depthwise" if layer.groups == layer.in_channels > 1 else size
            found.setdefault(kind, []).append(layer.weight.detach())
    return found


def _shares(weights: Iterable[Tensor]) -> dict[str, list[float]]:
    """In both WAYS, at each of TOLERANCES: the share of kernels that separate, in percent."""
    losses, energies = [], []
    for weight in weights:
        losses.append(rank_one_loss(weight).flatten())
        energies.append(weight.double().square().sum((2, 3)).flatten())
    loss, energy = torch.cat(losses), torch.cat(energies)
    count = [100 * float((loss <= tolerance).double().mean()) for tolerance in TOLERANCES]
    return dict(
        zip(WAYS, (count, [100 * float(energy[loss <= t].sum() / energy.sum()) for t in TOLERANCES]), strict=True)
    )


@dataclass(frozen=True)
class _Group:
    """All kernels of one kind in one network, in every trial."""

    network: str
    kind: str
    trials: list[Numbers]

    @property
    def name(self) -> str:
        return f"{self.network} {self.kind}"

    @property
    def count(self) -> int:
        return self.trials[0]["kernels"]

    def trained(self, tolerance: float, way: str = "by count") -> float:
        return self.trials[0]["trained"][way][TOLERANCES.index(tolerance)]

    def random(self, tolerance: float, way: str = "by count") -> tuple[float, float, float]:
        """Mean over the draws, and where it lies; of a single draw, the share itself."""
        values = [trial["random"][way][TOLERANCES.index(tolerance)] for trial in self.trials]
        if len(values) == 1:
            return values[0], values[0], values[0]
        found = mean_of(values)
        return found.mean, found.low, found.high


def _verdict(groups: Sequence[_Group], missing: Sequence[str]) -> str:
    """Most: more than half, by count and by energy, of every kind in every network."""
    if missing or min(len(group.trials) for group in groups) < ENOUGH:
        return NOT_SHOWN
    return HOLDS if max(group.trained(TOLD[0], way) for group in groups for way in WAYS) < 50 else FAILS


def _says(groups: Sequence[_Group], missing: Sequence[str]) -> str:
    least = TOLD[0]
    each = [f"{g.name} {g.trained(least):.1f} % ({g.trained(least, 'by energy'):.1f} % by energy)" for g in groups]
    parts = [
        f"When a kernel may lose {100 * least:g} % of its energy, these shares separate: {', '.join(each)}; of random "
        f"kernels {_chance(groups, least)}."
    ]
    for tolerance in TOLD[1:]:
        most = [f"{g.name} ({g.trained(tolerance):.0f} %)" for g in groups if g.trained(tolerance) > 50]
        parts.append(
            f"At {100 * tolerance:g} % more than half separate in {', '.join(most) or 'none'}; of random kernels "
            f"{_chance(groups, tolerance)}."
        )
    if missing:
        parts.append(f"Missing: {', '.join(missing)}.")
    return " ".join(parts)


def _chance(groups: Sequence[_Group], tolerance: float) -> str:
    return ", ".join(f"{size} {group.random(tolerance)[0]:.2f} %" for size, group in _sizes(groups).items())


def _sizes(groups: Sequence[_Group]) -> dict[str, _Group]:
    """For each size of kernel the group that has the most of them: chance depends on nothing else."""
    return {group.kind.split()[0]: group for group in sorted(groups, key=lambda group: group.count)}


def _row(group: _Group) -> dict[str, Any]:
    row: dict[str, Any] = {"network": group.network, "kernels": group.kind, "how many": group.count}
    for tolerance in TOLD:
        for way in WAYS:
            row[f"{100 * tolerance:g} %, {way}"] = f"{group.trained(tolerance, way):.1f} %"
        row[f"{100 * tolerance:g} %, random"] = f"{group.random(tolerance)[0]:.2f} %"
    return row


def _figures(groups: Sequence[_Group]) -> list[dict[str, Any]]:
    return [
        {
            "kind": "curves",
            "title": f"Kernels that are a column times a row, {way}",
            "series": [
                *(
                    {"name": g.name, "points": [[100 * t, *[g.trained(t, way)] * 3] for t in TOLERANCES]}
                    for g in groups
                ),
                *(
                    {"name": f"random {size}", "points": [[100 * t, *g.random(t, way)] for t in TOLERANCES]}
                    for size, g in _sizes(groups).items()
                ),
            ],
            "x": "tolerance: energy of a kernel that may be lost, %",
            "y": "kernels that separate, %" if way == WAYS[0] else "energy in kernels that separate, %",
            "log_x": True,
            "lines": [{"name": "half", "at": 50}],
        }
        for way in WAYS
    ]
