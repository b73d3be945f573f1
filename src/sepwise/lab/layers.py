"""What is known of each convolution of a trained network without converting it, and what converting it loses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..conversion.candidates import Candidate
from ..conversion.survey import Survey, relative_change, survey
from ..conversion.walk import Visit, outputs_of, rest_of, walk
from ..factor import FORMS, MatrixForm
from ..geometry import ConvShape
from ..measure.correlation import correlations
from ..measure.separability import energy_curve, intra_kernel

Progress = Callable[[float], None]
Row = dict[str, Any]

NOISE = 0.01  # of a layer's variance, put on its output to see what the network's output makes of it
CURVE = (1, 2, 4, 8)  # pixels
SURVEYED = 0.9  # share of the work, for the bar


def read_by_layers(model: nn.Module, batches: Sequence[Tensor]) -> list[Row]:
    """What every convolution reads, in the order in which they run: `measure.correlation.Correlation`, and

    place           0 for the first, 1 for the last
    intra           mean intra-kernel correlation of its weight; None for kernels of one pixel or on one channel,
                    whose intra-kernel correlation is 1 whatever they hold
    intra_chance    the same of normal random numbers of that shape
    """
    found = correlations(model, batches)
    return [
        {"name": name, "place": number / max(1, len(found) - 1), **each.to_dict(), **_intra(model.get_submodule(name))}
        for number, (name, each) in enumerate(found.items())
    ]


def converted_layers(
    model: nn.Module, batches: Sequence[Tensor], forms: Sequence[str], progress: Progress = lambda done: None
) -> list[Row]:
    """Every layer that some form can stand for, converted alone: plain facts, and its candidates as rows.

    macs, weight    multiplications of the dense layer; mean square of its weights, normalization folded in
    felt            relative change of the network's output over relative change of the layer's, for white noise
    candidates      form; share, of the dense layer's multiplications; effect, on the network's output (see
                    `conversion.candidates`); error, that the fit itself reports; energy lost of the weight by what was
                    fitted; nearest, the same by the nearest chain, None for forms without a closed answer
    """

    def told(stage: str, done: int, total: int) -> None:
        if stage == "survey":
            progress(SURVEYED * done / max(1, total))

    found = survey(model, batches, forms=forms, progress=told)
    felt = _felt(found, batches[0])
    rows = []
    for layer in found.layers:
        site = found.network.site(layer.name)
        if not layer.candidates or site is None:
            continue
        weight = found.network.conv(site).weight.detach()
        rows.append(
            {
                "name": layer.name,
                "weight_shape": list(layer.conv.weight_shape),
                "macs": layer.macs,
                "weight": float(weight.double().square().mean()),
                "felt": felt[layer.name],
                "candidates": _candidates(layer.candidates, layer.conv, layer.macs, weight),
            }
        )
    return rows


def _candidates(candidates: Sequence[Candidate], conv: ConvShape, macs: int, weight: Tensor) -> list[Row]:
    closed = {c.form for c in candidates if isinstance(FORMS[c.form], MatrixForm)}
    curves = {form: energy_curve(weight, form, conv.groups) for form in closed}

    def nearest(c: Candidate) -> float | None:
        return 1 - curves[c.form][c.rank - 1] if c.form in curves and isinstance(c.rank, int) else None

    return [
        {
            "form": c.form,
            "share": c.macs / macs,
            "effect": c.effect,
            "error": c.fitted.error,
            "energy": 1 - c.energy_kept,
            "nearest": nearest(c),
        }
        for c in candidates
    ]


def _felt(found: Survey, pictures: Tensor) -> dict[str, float]:
    random = torch.Generator().manual_seed(0)
    gains: dict[str, float] = {}

    def visit(at: Visit) -> None:
        answer = at.outputs[0]
        deviation = answer.std(dim=(0, *range(2, answer.ndim)), keepdim=True)
        noisy = answer + NOISE**0.5 * deviation * torch.randn(answer.shape, generator=random)
        reference, changed = (outputs_of(rest_of(found.network, at.site.node, v, at.values)) for v in (answer, noisy))
        gains[at.site.name] = relative_change(changed, reference) / NOISE

    walk(found.network, [pictures], visit)
    return gains


def _intra(module: nn.Module) -> dict[str, float | None]:
    assert isinstance(module, nn.Conv2d)
    weight = module.weight.detach()
    if weight.shape[1] == 1 or weight[0, 0].numel() == 1:
        return {"intra": None, "intra_chance": None}
    random = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    intra, chance = (float(intra_kernel(w, module.groups).mean()) for w in (weight, random))
    return {"intra": intra, "intra_chance": chance}


def over_seeds(trials: Sequence[dict[str, list[Row]]]) -> list[Row]:
    """The layers of one network with all that trials say of them ("read" and "converted"), means over the trials.

    neighbours          r at one pixel, mean over channels and axes; `curve`: distance -> the same at that distance
    dimensions_share    dimensions per channel that varies
    """
    found: dict[str, list[Row]] = {}
    for trial in trials:
        converted = {row["name"]: row for row in trial["converted"]}
        for row in trial["read"]:
            found.setdefault(row["name"], []).append({**row, **converted.get(row["name"], {})})
    return [_mean_layer(rows) for rows in found.values()]


def _mean_layer(rows: Sequence[Row]) -> Row:
    layer = {**rows[0], **{n: mean([r[n] for r in rows]) for n in ("across", "chance", "intra", "intra_chance")}}
    layer["curve"] = {d: mean([c.get(str(d)) for r in rows for c in r["spatial"].values()]) for d in CURVE}
    layer["neighbours"] = layer["curve"][1]
    layer["dimensions_share"] = mean([r["dimensions"] and r["dimensions"] / r["varying"] for r in rows])
    if all("candidates" in r for r in rows):
        layer["felt"] = mean([r["felt"] for r in rows])
        same: dict[tuple[str, float], list[Row]] = {}
        for candidate in (c for r in rows for c in r["candidates"]):
            same.setdefault((candidate["form"], candidate["share"]), []).append(candidate)
        numbers = ("effect", "error", "energy", "nearest")
        layer["candidates"] = [{**cs[0], **{n: mean([c[n] for c in cs]) for n in numbers}} for cs in same.values()]
    return layer


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are known; None when none is."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
