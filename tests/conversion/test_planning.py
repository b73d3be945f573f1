"""`plan` as a whole: an agreement to keep, alone and with other budgets, measured again from outside."""

# pyright: reportOptionalMemberAccess=false

import pytest
import torch
from torch import nn

import sepwise
from sepwise.conversion import convert
from sepwise.conversion.agreed import agreement_on, hold_out
from sepwise.errors import BudgetError, PictureError


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 4, 3)
    ).eval()


def pictures(count: int = 24) -> list[torch.Tensor]:
    torch.manual_seed(5)
    return list(torch.randn(count, 3, 12, 12).split(10))


@pytest.mark.parametrize(("wanted", "unit"), [(0.9, "macs"), (0.97, "parameters")])
def test_an_agreement_is_kept_and_little_less_would_not(wanted, unit):
    model, batches = network(), pictures()
    plan = sepwise.plan(model, batches[0], budget={"agreement": wanted}, minimise=unit, batches=batches)
    fit, held = hold_out(batches)
    measured = agreement_on(convert(model, plan, fit), model, held).correlation
    assert measured == pytest.approx(plan.agreement.value, abs=1e-6)
    assert measured >= wanted
    assert (plan.agreement.metric, plan.agreement.pictures) == ("correlation", 6)
    assert plan.budget == {"agreement": wanted}
    dense, planned = getattr(plan, unit)
    assert planned < 0.95 * dense
    cheaper = sepwise.plan(model, batches[0], budget={unit: 0.9 * planned / dense}, batches=fit)
    assert agreement_on(convert(model, cheaper, fit), model, held).correlation < wanted


def test_budgets_together():
    model, batches = network(), pictures()
    small = sepwise.plan(model, batches[0], budget={"agreement": 0.95}, minimise="parameters", batches=batches)
    share = 1.05 * small.parameters[1] / small.parameters[0]
    both = sepwise.plan(model, batches[0], budget={"agreement": 0.95, "parameters": share}, batches=batches)
    assert both.parameters[1] <= share * both.parameters[0]
    assert both.agreement.value >= 0.95
    assert both.macs[1] < both.macs[0]
    with pytest.raises(
        BudgetError, match=r"agreement=0\.99 cannot be met: the networks converted reached 0\.\d+ at best"
    ):
        sepwise.plan(model, batches[0], budget={"agreement": 0.99, "macs": 0.2}, batches=batches)
    with pytest.raises(BudgetError, match=r"macs=0\.001 cannot be met: these forms reach"):
        sepwise.plan(model, batches[0], budget={"agreement": 0.9, "macs": 0.001}, batches=batches)


def test_refusals():
    model, batches = network(), pictures()
    with pytest.raises(BudgetError, match="minimise='flops': expected one of macs, parameters, weight_bytes, latency"):
        sepwise.plan(model, batches[0], budget={"agreement": 0.9}, minimise="flops", batches=batches)
    with pytest.raises(PictureError, match="measured on pictures held out of the fit: give at least two"):
        sepwise.plan(model, batches[0][:1], budget={"agreement": 0.9})


def test_pictures_held_out_are_the_last_quarter():
    def sizes(*lengths):
        return tuple([len(b) for b in part] for part in hold_out([torch.zeros(n, 1) for n in lengths]))

    assert sizes(10, 10, 4) == ([10, 8], [2, 4])
    assert sizes(2) == ([1], [1])
    assert sizes(3, 1) == ([3], [1])
    assert sizes(1, 7) == ([1, 5], [2])
