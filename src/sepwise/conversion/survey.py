"""What each form and rank of each layer would cost and what it would do to the network's output: measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ..errors import PlanError
from ..factor import FORMS, Rank, compose, energy_kept
from ..geometry import ConvShape, chain_macs
from ..graph.fold import fold_norms
from ..graph.network import Network, trace
from ..nn.dense import DenseConv, shape_of_dense
from .candidates import Candidate, LayerSurvey
from .fit import RIDGE, LayerFit
from .kept_survey import KeptSurvey
from .metric import output_metrics
from .plan import BatchNorm
from .statistics import moments_of, why_too_large
from .walk import Visit, outputs_of, rest_of, walk

Progress = Callable[[str, int, int], None]

FRACTIONS = (0.05, 0.08, 0.12, 0.18, 0.28, 0.42, 0.65)  # of the layer's dense MACs, tried for every form
LOW = (0.005, 0.01, 0.018, 0.03)  # tried, the largest first, while the layer can stand it:
SLIGHT = 3e-3  # the last rank tried changed the output by less
PROBE_PIXELS = 100_000  # as many pictures of the first batch measure the effect on the output; 2 to 64 of them
POSITIONS = 8192  # sampled output positions of each layer, over all pictures, while surveying


@dataclass(frozen=True)
class Survey:
    """Everything a planner needs; made once, planned from for any budget.

    left_out    name -> one sentence, for convolutions that cannot be converted
    network     the copy that was measured, normalization folded if asked; its layers are still dense
    """

    layers: tuple[LayerSurvey, ...]
    left_out: dict[str, str]
    batch_norm: BatchNorm
    network: Network
    size: tuple[int, ...]


def survey(
    model: nn.Module,
    batches: Sequence[Tensor],
    *,
    forms: Sequence[str] = tuple(FORMS),
    batch_norm: BatchNorm = "fold",
    progress: Progress | None = None,
    kept: KeptSurvey | None = None,
) -> Survey:
    """Fit every candidate of every layer on `batches` and measure its effect on the network's output.

    batches    calibration pictures, (N, C, *size) each, all of one size
    forms      names of the forms to try
    kept       layers of the same survey, begun earlier: taken from there, and put there when they are finished
    Raises ModelError for a model that cannot be followed or run, PlanError for an unknown form.
    """
    unknown = [f for f in forms if f not in FORMS]
    if unknown:
        raise PlanError(f"there is no form {unknown[0]!r}; the forms are {', '.join(FORMS)}")
    network = trace(model, batches[0])
    if batch_norm == "fold":
        fold_norms(network)
    batches = _probes_first(batches)
    per_picture = max(1, POSITIONS // sum(len(b) for b in batches))
    metrics = output_metrics(network, batches, progress)
    layers: list[LayerSurvey] = []
    references: list[list[Tensor]] = []

    def visit(at: Visit) -> None:
        if progress:
            progress("survey", len(layers), len(network.sites))
        if not references:
            references.append(outputs_of(rest_of(network, at.site.node, at.outputs[0], at.values)))
        layers.append(_survey_layer(network, at, forms, per_picture, metrics.get(at.site.name), references[0], kept))

    walk(network, batches, visit)
    if progress:
        progress("survey", len(layers), len(network.sites))
    size = tuple(batches[0].shape[2:])
    return Survey(tuple(layers), dict(network.left_out), batch_norm, network, size)


def _survey_layer(
    network: Network,
    at: Visit,
    forms: Sequence[str],
    per_picture: int,
    metric: Tensor | None,
    reference: list[Tensor],
    kept: KeptSurvey | None = None,
) -> LayerSurvey:
    module = network.conv(at.site)
    conv = shape_of_dense(module)
    size = tuple(at.inputs[0].shape[2:])
    reason = why_too_large(conv)
    if reason:
        network.left_out[at.site.name] = reason
    options = {} if reason else {form: list(_options(conv, size, form)) for form in forms}
    layer = LayerSurvey(at.site.name, conv, conv.macs(size), (), size, module.weight.element_size())
    earlier = kept.get(layer) if kept else None
    if earlier or not any(options.values()):
        return earlier or layer
    pairs = zip(at.inputs, at.outputs, strict=True)
    moments = moments_of(conv, module.padding_mode, per_picture, pairs, halves=False)
    fits = LayerFit(conv, module.weight, moments, metric, RIDGE)
    del moments

    def tried(form: str, rank: Rank, macs: int) -> Candidate:
        fitted = fits.fit(form, rank)
        steps = FORMS[form].steps(conv, rank)
        dense = compose(fitted.weights, [s.groups for s in steps])
        answer = _like(module, dense, fitted.bias)(at.inputs[0])
        changed = outputs_of(rest_of(network, at.site.node, answer, at.values))
        energy, parameters = energy_kept(module.weight.detach(), dense), sum(s.parameters for s in steps)
        return Candidate(form, rank, macs, parameters, energy, relative_change(changed, reference), fitted)

    candidates: list[Candidate] = []
    for form, ranks in options.items():
        candidates += [tried(form, rank, macs) for rank, macs in ranks]
        for rank, macs in _options(conv, size, form, LOW) if ranks else ():
            if candidates[-1].effect < SLIGHT and macs < candidates[-1].macs:
                candidates.append(tried(form, rank, macs))
    layer = replace(layer, candidates=tuple(candidates))
    if kept:
        kept.put(layer)
    return layer


def _options(
    conv: ConvShape, size: tuple[int, ...], form: str, fractions: Sequence[float] = FRACTIONS
) -> Iterator[tuple[Rank, int]]:
    """Ranks of a form that save multiplications and what they cost, the largest first, about one for each fraction."""
    if FORMS[form].why_not(conv):
        return
    dense = conv.macs(size)
    full = FORMS[form].full_rank(conv)
    seen: set[Rank] = set()
    for fraction in reversed(fractions):
        rank = _largest_rank(conv, size, form, full, fraction * dense)
        if rank is not None and rank not in seen:
            seen.add(rank)
            yield rank, chain_macs(FORMS[form].steps(conv, rank), size)


def _largest_rank(conv: ConvShape, size: tuple[int, ...], form: str, full: Rank, budget: float) -> Rank | None:
    """The largest rank whose chain costs at most `budget` MACs; a pair keeps the proportion of the full ranks."""
    top = max(full) if isinstance(full, tuple) else full
    low, high = 0, top

    def at(r: int) -> Rank:
        return tuple(max(1, round(f * r / top)) for f in full) if isinstance(full, tuple) else r  # type: ignore[return-value]

    while low < high:
        middle = (low + high + 1) // 2
        if chain_macs(FORMS[form].steps(conv, at(middle)), size) <= budget:
            low = middle
        else:
            high = middle - 1
    if low == 0:
        return None
    return at(low - low % 8 if low >= 16 and not isinstance(full, tuple) else low)


def _like(module: DenseConv, weight: Tensor, bias: Tensor) -> Callable[[Tensor], Tensor]:
    """The convolution `module` with another weight and bias."""

    def run(x: Tensor) -> Tensor:
        return module._conv_forward(x, weight.to(x.dtype), bias.to(x.dtype))

    return run


def _probes_first(batches: Sequence[Tensor]) -> list[Tensor]:
    """The same pictures, the first batch cut so that it holds the probes and nothing else."""
    first = batches[0]
    probes = min(len(first), 64, max(2, PROBE_PIXELS // first.shape[2:].numel()))
    return [part for part in (first[:probes], first[probes:], *batches[1:]) if len(part)]


def relative_change(changed: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """|changed - reference|^2 / |reference - its mean|^2, over all tensors of an output."""
    lost = sum(float((c.double() - r.double()).square().sum()) for c, r in zip(changed, reference, strict=True))
    total = sum(float((r.double() - r.double().mean()).square().sum()) for r in reference)
    return lost / total if total else lost
