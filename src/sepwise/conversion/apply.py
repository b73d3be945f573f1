"""A plan carried out: dense layers replaced by separable ones, fitted in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import PlanError, ShapeError
from ..factor import FORMS, check_rank
from ..graph.fold import fold_norms
from ..graph.network import Network, trace
from ..nn import FactoredConv, layer_for
from ..nn.dense import DenseConv, shape_of_dense
from .fit import Fitted, LayerFit
from .metric import output_metrics
from .plan import Choice, Plan
from .statistics import moments_of, why_too_large
from .survey import Progress
from .walk import Visit, walk

POSITIONS = 20_000  # sampled output positions of each layer, over all pictures
ITERATIONS = 8  # of L-BFGS on the steps before the last


def convert(
    model: nn.Module,
    plan: Plan,
    batches: Sequence[Tensor] | None = None,
    *,
    example: Tensor | None = None,
    iterations: int = ITERATIONS,
    progress: Progress | None = None,
) -> nn.Module:
    """Replace the layers that a plan names by separable ones and fit these to what the dense layers answer.

    model        left unchanged; the result is a converted copy in evaluation mode
    plan         from `plan`, from a file (`Plan.load`) or written by hand
    batches      calibration pictures, (N, C, *size) each, unlabelled. Layers are fitted one after the other: each sees
                 the outputs of the layers already converted and is asked for the dense network's answer. None: no
                 pictures; every layer takes the nearest weight in the Frobenius norm, which is exact at full rank and
                 poor at low rank
    example      an input, needed only for models that cannot be followed symbolically when there are no batches
    iterations   of L-BFGS for each layer; 0 fits the last step of each chain only
    progress     called as progress(stage, done, total)
    Raises ModelError or PlanError when model, plan and pictures do not fit each other.
    """
    network = trace(model, batches[0] if batches else example)
    _check(network, plan)
    if plan.batch_norm == "fold":
        fold_norms(network)
    wanted = plan.converted
    if not batches:
        for name, choice in wanted.items():
            network.replace(name, nearest_layer(_conv(network, name), choice))
        return network.model.eval()
    per_picture = max(1, POSITIONS // sum(len(b) for b in batches))
    metrics = output_metrics(network, batches, progress)
    done = 0

    def visit(at: Visit) -> nn.Module | None:
        nonlocal done
        choice = wanted.get(at.site.name)
        if choice is None:
            return None
        if progress:
            progress("fit", done, len(wanted))
        layer = _fit_layer(network.conv(at.site), choice, at, per_picture, metrics.get(at.site.name), iterations)
        done += 1
        return layer

    walk(network, batches, visit)
    if progress:
        progress("fit", done, len(wanted))
    return network.model.eval()


def rebuild(model: nn.Module, plan: Plan, state: dict[str, Tensor], example: Tensor | None = None) -> nn.Module:
    """The converted network from the dense architecture, its plan and the converted weights (`model.safetensors`).

    model    the dense architecture; its weights do not matter and it is left unchanged
    Raises PlanError when plan or weights do not fit the model.
    """
    network = trace(model, example)
    _check(network, plan)
    if plan.batch_norm == "fold":
        fold_norms(network)
    for name, choice in plan.converted.items():
        network.replace(name, _empty_layer(_conv(network, name), choice))
    try:
        network.model.load_state_dict(state)
    except RuntimeError as error:
        raise PlanError(f"the weights do not fit the model converted by this plan: {error}") from None
    return network.model.eval()


def nearest_layer(module: DenseConv, choice: Choice) -> FactoredConv:
    """The layer of a plan without data: nearest to the dense weight in the Frobenius norm."""
    rank = check_rank(FORMS[choice.form], shape_of_dense(module), choice.rank)
    weights = FORMS[choice.form].factor(module.weight.detach(), module.groups, rank)
    bias = torch.zeros(module.out_channels) if module.bias is None else module.bias.detach()
    return filled_layer(module, choice, Fitted(weights, bias, 0.0))


def filled_layer(module: DenseConv, choice: Choice, fitted: Fitted) -> FactoredConv:
    """The layer that replaces the dense convolution `module`, holding fitted weights."""
    layer = _empty_layer(module, choice)
    with torch.no_grad():
        for held, weight in zip(layer.weights, fitted.weights, strict=True):
            held.copy_(weight)
        assert layer.bias is not None
        layer.bias.copy_(fitted.bias)
    return layer


def _fit_layer(
    module: DenseConv, choice: Choice, at: Visit, per_picture: int, metric: Tensor | None, iterations: int
) -> FactoredConv:
    conv = shape_of_dense(module)
    rank = check_rank(FORMS[choice.form], conv, choice.rank)
    reason = why_too_large(conv)
    if reason:
        raise PlanError(f"{at.site.name}: {reason}; take the layer out of the plan, or convert without pictures")
    found = moments_of(conv, module.padding_mode, per_picture, zip(at.inputs, at.outputs, strict=True))
    fits = LayerFit(conv, module.weight, found, metric)
    return filled_layer(module, choice, fits.fit(choice.form, rank, iterations))


def _empty_layer(module: DenseConv, choice: Choice) -> FactoredConv:
    conv, weight = shape_of_dense(module), module.weight
    rank = check_rank(FORMS[choice.form], conv, choice.rank)
    layer = layer_for(
        choice.form, conv, rank, padding_mode=module.padding_mode, device=weight.device, dtype=weight.dtype
    )
    return layer.train(module.training)


def _conv(network: Network, name: str) -> DenseConv:
    site = network.site(name)
    assert site is not None  # `_check` has refused all others
    return network.conv(site)


def _check(network: Network, plan: Plan) -> None:
    for name, choice in plan.converted.items():
        if name in network.left_out:
            raise PlanError(f"the plan converts {name}, which cannot be converted: {network.left_out[name]}")
        site = network.site(name)
        if site is None:
            raise PlanError(f"the plan converts {name}, which is no convolution of {type(network.model).__name__}")
        conv = shape_of_dense(network.conv(site))
        reason = FORMS[choice.form].why_not(conv)
        if reason:
            raise PlanError(f"the plan gives {name} the form {choice.form}: {reason}")
        try:
            check_rank(FORMS[choice.form], conv, choice.rank)
        except ShapeError as error:
            raise PlanError(f"the plan gives {name} a rank that does not exist: {error}") from None
