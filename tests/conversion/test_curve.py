"""The network at other budgets: what is lent equals a conversion, and is put back whatever happens."""

# pyright: reportAttributeAccessIssue=false

import pytest
import torch
from plain_networks import Residual, settle

from sepwise.conversion import at_budgets, convert, in_forms, survey, totals_of
from sepwise.conversion.apply import filled_layer
from sepwise.conversion.curve import FRACTIONS
from sepwise.errors import BudgetError
from sepwise.graph.network import trace
from sepwise.nn import FactoredConv


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    model, x = settle(Residual()), torch.randn(12, 3, 10, 10)
    return model, x, survey(model, [x[:8], x[8:]], forms=("cp", "depthwise"), batch_norm="fold")


def dense_layers(surveyed) -> dict[str, int]:
    network = surveyed.network
    return {site.name: id(network.graph.get_submodule(site.name)) for site in network.sites}


@torch.no_grad()
def test_lent_networks_answer_as_converted_ones(found):
    model, x, surveyed = found
    wanted = model(x)
    planned = []
    for plan, fitted, blind in at_budgets(surveyed, totals_of(surveyed, x), (0.9, 0.6, 0.4)):
        planned.append(plan.macs[1] / plan.macs[0])
        torch.testing.assert_close(blind(x), convert(model, plan)(x))
        by_hand = convert(model, plan)
        for name, choice in plan.converted.items():
            layer = next(la for la in surveyed.layers if la.name == name)
            best = next(c for c in layer.candidates if (c.form, c.rank) == (choice.form, choice.rank))
            site = surveyed.network.site(name)
            by_hand.set_submodule(name, filled_layer(surveyed.network.conv(site), choice, best.fitted))
        torch.testing.assert_close(fitted(x), by_hand(x))
        assert not torch.allclose(fitted(x), wanted)
        assert list(fitted.parameters()) == []
        torch.testing.assert_close(surveyed.network.model(x), wanted, msg="the surveyed network is dense again")
    assert len(planned) == 3
    assert planned == sorted(planned, reverse=True)


def test_budgets_that_cannot_be_met_are_passed_over(found):
    _, x, surveyed = found
    fractions = [plan.budget["macs"] for plan, _, _ in at_budgets(surveyed, totals_of(surveyed, x), (0.5, 0.001, 0.4))]
    assert fractions == [0.5, 0.4]
    assert sorted(FRACTIONS, reverse=True) == list(FRACTIONS)


@torch.no_grad()
def test_a_network_of_one_form_is_its_own(found):
    model, x, surveyed = found
    before = dense_layers(surveyed)
    for form in ("cp", "depthwise"):
        plan, network = in_forms(surveyed, [form], {"macs": 0.6}, totals_of(surveyed, x))
        assert {choice.form for choice in plan.converted.values()} == {form}
        assert plan.macs[1] <= 0.6 * plan.macs[0]
        assert {n for n, m in network.named_modules() if isinstance(m, FactoredConv)} == set(plan.converted)
        lent = next(fitted for p, fitted, _ in at_budgets(surveyed, totals_of(surveyed, x), (0.6,)))
        missed = [float((n(x) - model(x)).square().mean()) for n in (network, lent)]
        assert missed[0] >= missed[1] > 0
    assert dense_layers(surveyed) == before
    torch.testing.assert_close(surveyed.network.model(x), model(x))
    with pytest.raises(BudgetError, match="cannot be met"):
        in_forms(surveyed, ["cp"], {"macs": 0.001}, totals_of(surveyed, x))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_dense_layers_are_put_back_when_a_call_fails(found, error):
    _, x, surveyed = found
    before = dense_layers(surveyed)
    _, fitted, blind = next(at_budgets(surveyed, totals_of(surveyed, x), (0.5,)))
    seen = []

    def fail(module, inputs):
        seen.append([m for m in surveyed.network.model.modules() if isinstance(m, FactoredConv)])
        raise error

    handle = surveyed.network.model.scores.register_forward_pre_hook(fail)
    try:
        for lent in (fitted, blind):
            with pytest.raises(error):
                lent(x)
            assert seen.pop(), "the layers were exchanged during the call"
            assert dense_layers(surveyed) == before
    finally:
        handle.remove()
    assert trace(surveyed.network.model).left_out == {}
