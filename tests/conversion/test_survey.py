"""The survey against plain forward passes of networks with one layer replaced by hand."""

# pyright: reportArgumentType=false

import copy

import pytest
import torch
from plain_networks import Branching, Joined, Residual, settle
from torch import Tensor, nn

from sepwise.conversion import Choice, Plan, convert, plan_from, survey, totals_of
from sepwise.conversion.fit import Fitted
from sepwise.conversion.survey import PROBE_PIXELS, SLIGHT, _probes_first, _survey_layer
from sepwise.conversion.walk import outputs_of, rest_of, walk
from sepwise.errors import ModelError, PlanError
from sepwise.factor import FORMS, compose
from sepwise.geometry import chain_macs
from sepwise.nn import SpatialConv2d
from sepwise.nn.dense import shape_of_dense

NETWORKS = {"residual": Residual, "joined": Joined, "exported": Branching}


def pictures(n: int = 9, size: int = 9) -> Tensor:
    return torch.randn(n, 3, size, size)


def replaced(model: nn.Module, name: str, form: str, rank, fitted: Fitted) -> nn.Module:
    """A copy of the model whose convolution `name` computes with the composed kernel of the chain."""
    changed = copy.deepcopy(model)
    conv = changed.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    groups = [s.groups for s in FORMS[form].steps(shape_of_dense(conv), rank)]
    conv.weight = nn.Parameter(compose(fitted.weights, groups).to(conv.weight.dtype))
    conv.bias = nn.Parameter(fitted.bias.to(conv.weight.dtype))
    return changed


@torch.no_grad()
def measured_effect(changed: nn.Module, model: nn.Module, x: Tensor) -> float:
    a, b = outputs_of(changed(x)), outputs_of(model(x))
    lost = sum(float((p.double() - q.double()).square().sum()) for p, q in zip(a, b, strict=True))
    return lost / sum(float((q.double() - q.double().mean()).square().sum()) for q in b)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_the_effect_is_the_change_of_the_output_with_that_layer_alone(make):
    model, x = settle(make()), pictures()
    found = survey(model, [x[:6], x[6:]], batch_norm="keep")
    assert [layer.name for layer in found.layers] == [site.name for site in found.network.sites]
    checked = 0
    for layer in found.layers:
        for candidate in layer.candidates[::4]:
            changed = replaced(model, layer.name, candidate.form, candidate.rank, candidate.fitted)
            wanted = measured_effect(changed, model, x[:6])  # probes: the first batch
            assert candidate.effect == pytest.approx(wanted, rel=1e-5, abs=1e-9)
            assert candidate.effect != pytest.approx(measured_effect(changed, model, x[6:]), rel=1e-6)
            checked += 1
    assert checked >= 6


@pytest.mark.parametrize("batch_norm", ["fold", "keep"])
def test_candidates_save_multiplications_and_ranks_descend(batch_norm):
    found = survey(settle(Joined()), [pictures()], batch_norm=batch_norm)
    assert found.batch_norm == batch_norm
    assert found.size == (9, 9)
    for layer in found.layers:
        assert layer.macs == layer.conv.macs(SIZES[layer.name])
        for form in FORMS:
            mine = [c for c in layer.candidates if c.form == form]
            ranks = [c.rank for c in mine]
            assert ranks == sorted(set(ranks), reverse=True)
            assert [c.macs for c in mine] == sorted((c.macs for c in mine), reverse=True)
            for c in mine:
                steps = FORMS[form].steps(layer.conv, c.rank)
                assert c.macs == chain_macs(steps, SIZES[layer.name]) <= 0.65 * layer.macs
                assert c.parameters == sum(s.parameters for s in steps)
                assert c.energy_kept <= 1 + 1e-9
    assert {c.form for layer in found.layers for c in layer.candidates} == set(FORMS)


SIZES = {"left": (9, 9), "right": (9, 9), "after": (9, 9), "small": (4, 4)}


def test_full_rank_has_no_effect():
    model, x = settle(Joined()).double(), pictures().double()
    found = survey(model, [x], forms=())
    effects = {}

    def visit(at) -> None:
        conv = found.network.conv(at.site)
        shape = shape_of_dense(conv)
        assert conv.bias is not None
        for form in FORMS:
            full = FORMS[form].full_rank(shape)
            weights = FORMS[form].factor(conv.weight.detach(), 1, full)
            changed = replaced(model, at.site.name, form, full, Fitted(weights, conv.bias.detach(), 0.0))
            effects[at.site.name, form] = measured_effect(changed, model, x)
        same = rest_of(found.network, at.site.node, at.outputs[0], at.values)
        reference = outputs_of(same)
        surveyed = _survey_layer(found.network, at, ("cp",), 10**6, None, reference)
        assert all(candidate.effect > 1e-9 for candidate in surveyed.candidates)

    walk(found.network, [x], visit)
    assert len(effects) == 4 * len(FORMS)
    assert max(effects.values()) < 1e-20


def test_more_rank_harms_less():
    torch.manual_seed(1)
    found = survey(settle(Residual()), [pictures(24)], forms=("spatial", "depthwise"))
    for layer in found.layers:
        for form in ("spatial", "depthwise"):
            effects = [c.effect for c in layer.candidates if c.form == form]
            assert effects[0] < effects[-1]


def test_ranks_below_the_floor_are_tried_while_the_layer_can_stand_it():
    class Uneven(nn.Module):
        """Two equal convolutions; what the second gives weighs next to nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 32, 1)
            self.strong, self.weak = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.strong(x) + 0.02 * self.weak(x)

    layers = {layer.name: layer for layer in survey(Uneven(), [pictures(6)], forms=("cp",)).layers}
    shares = {name: [c.macs / layer.macs for c in layer.candidates] for name, layer in layers.items()}
    assert 0.03 < min(shares["strong"]) < 0.05
    assert min(shares["weak"]) < 0.01 < 0.03 < max(s for s in shares["weak"] if s < 0.05)
    assert all(c.effect < SLIGHT for c in layers["weak"].candidates[:-1])
    assert layers["strong"].candidates[-1].effect > SLIGHT


def test_probes_are_the_first_pictures_as_many_as_are_cheap():
    def sizes(*shapes):
        return [len(b) for b in _probes_first([torch.empty(n, 3, s, s, device="meta") for n, s in shapes])]

    assert sizes((128, 32), (7, 32)) == [64, 64, 7]
    assert sizes((10, 32)) == [10]
    assert sizes((16, 200), (16, 200)) == [2, 14, 16]
    assert sizes((1, 2000)) == [1]
    assert PROBE_PIXELS // 150**2 == 4
    assert sizes((9, 150)) == [4, 5]


def test_cutting_off_the_probes_changes_no_fit():
    model, x = settle(Residual()), pictures(70)
    whole, parts = (survey(model, b, forms=("depthwise",)) for b in ([x], [x[:64], x[64:]]))
    for a, b in zip(whole.layers, parts.layers, strict=True):
        for one, other in zip(a.candidates, b.candidates, strict=True):
            assert one.effect == other.effect
            assert all(torch.equal(v, w) for v, w in zip(one.fitted.weights, other.fitted.weights, strict=True))


def test_progress_layers_left_out_and_refusals():
    model, x = settle(Residual()), pictures()
    seen = []
    found = survey(model, [x], forms=("cp",), progress=lambda *at: seen.append(at))
    assert seen == [("metric", 0, 1), ("metric", 1, 1), ("survey", 0, 2), ("survey", 1, 2), ("survey", 2, 2)]
    assert found.left_out == {}
    with pytest.raises(PlanError, match="there is no form 'cq'; the forms are depthwise"):
        survey(model, [x], forms=("cp", "cq"))
    with pytest.raises(ModelError, match="cannot run on these pictures"):
        survey(model, [torch.randn(2, 4, 9, 9)])


def test_a_layer_with_too_many_inputs_stays_dense_and_says_why(monkeypatch):
    monkeypatch.setattr("sepwise.conversion.statistics.MOST_INPUTS", 50)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    batches = [torch.randn(4, 3, 9, 9)]
    found = survey(model, batches, forms=["spatial"])
    assert list(found.left_out) == ["2"]
    assert "each output reads 72 numbers" in found.left_out["2"]
    assert [bool(layer.candidates) for layer in found.layers] == [True, False, False]
    plan = plan_from(found, {"macs": 0.9}, totals_of(found, batches[0]))
    assert plan.layers["2"].form == "dense"
    assert plan.layers["2"].why == found.left_out["2"]
    convert(model, plan, batches)
    asked = Plan({"2": Choice("spatial", 2, "", 1, 1, 1, 1)}, "keep")
    with pytest.raises(PlanError, match=r"2: each output reads 72 numbers.*take the layer out of the plan"):
        convert(model, asked, batches)
    assert isinstance(convert(model, asked).get_submodule("2"), SpatialConv2d)
