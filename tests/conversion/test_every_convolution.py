"""Every kind of convolution, one to three axes, in every form: same function at full rank, honest counts, exported."""

# pyright: reportArgumentType=false

import pytest
import torch
from torch import nn

from sepwise.conversion import Choice, Plan, convert, plan_from, survey, totals_of
from sepwise.factor import FORMS
from sepwise.graph import export
from sepwise.measure import cost
from sepwise.nn.dense import CONV, shape_of_dense

CASES = {
    "depthwise 7x7": (nn.Conv2d(8, 8, 7, padding=3, groups=8), (12, 12)),
    "depthwise 5x5 at stride 2": (nn.Conv2d(8, 8, 5, 2, 2, groups=8), (12, 12)),
    "depthwise 11x11, replicated": (nn.Conv2d(4, 4, 11, padding=5, groups=4, padding_mode="replicate"), (12, 12)),
    "depthwise with a multiplier": (nn.Conv2d(4, 8, 7, padding=3, groups=4), (12, 12)),
    "grouped at stride 2": (nn.Conv2d(8, 16, 3, 2, 1, groups=4), (12, 12)),
    "5x5": (nn.Conv2d(6, 8, 5, padding=2), (10, 10)),
    "7x7 at stride 2": (nn.Conv2d(4, 8, 7, 2, 3), (14, 14)),
    "11x11 at stride 4": (nn.Conv2d(4, 6, 11, 4, 2), (31, 31)),
    "dilated": (nn.Conv2d(6, 8, 3, padding=2, dilation=2), (11, 11)),
    "another geometry along each axis": (nn.Conv2d(6, 8, (3, 5), (1, 2), (0, 2), (2, 1)), (12, 13)),
    "reflected": (nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"), (10, 10)),
    "circular, grouped": (nn.Conv2d(6, 8, (5, 3), padding=(2, 1), padding_mode="circular", groups=2), (10, 10)),
    "same": (nn.Conv2d(6, 8, 5, padding="same"), (10, 10)),
    "one axis": (nn.Conv1d(6, 8, 9, 2, 4), (40,)),
    "three axes": (nn.Conv3d(4, 6, 3, padding=1), (5, 6, 6)),
    "three axes, another stride in time": (nn.Conv3d(4, 6, (3, 5, 5), (1, 2, 2), (1, 2, 2)), (5, 8, 8)),
    "depthwise 3x7x7": (nn.Conv3d(4, 4, (3, 7, 7), padding=(1, 3, 3), groups=4), (4, 8, 8)),
}


def network(case: str) -> tuple[nn.Module, torch.Tensor]:
    conv, size = CASES[case]
    mixing = CONV[len(size)](conv.out_channels, 4, 1)
    model = nn.Sequential(conv, nn.ReLU(), mixing).double().eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    return model, torch.randn(12, conv.in_channels, *size, dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", FORMS)
def test_full_rank_is_the_same_function(case, form):
    model, x = network(case)
    conv = shape_of_dense(model[0])  # type: ignore[index]
    if FORMS[form].why_not(conv):
        assert form.startswith("spatial")
        assert conv.geometry.axes == 1
        return
    plan = Plan({"0": Choice(form, FORMS[form].full_rank(conv), "", 1, 1, 1, 1)})
    wanted = model(x)
    torch.testing.assert_close(convert(model, plan)(x), wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))
    fitted = convert(model, plan, [x[:6], x[6:]])
    torch.testing.assert_close(fitted(x), wanted, rtol=0, atol=1e-8 * float(wanted.abs().max()))
    program = export(fitted, x[:2]).module()
    torch.testing.assert_close(program(x), fitted(x), rtol=0, atol=1e-12 * float(wanted.abs().max()))
    next(iter(fitted[0].parameters())).view(-1)[0] += 1e-6  # type: ignore[index]
    with pytest.raises(AssertionError):
        torch.testing.assert_close(fitted(x), wanted, rtol=0, atol=1e-8 * float(wanted.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_the_planner_is_offered_what_saves_and_counts_it(case):
    model, x = network(case)
    found = survey(model, [x[:6], x[6:]])
    offered = {c.form for c in found.layers[0].candidates}
    if "depthwise" in case and "multiplier" not in case:
        assert offered == {"spatial", "spatial_reversed"}
    elif "axis" in case and x.dim() == 3:
        assert offered == set(FORMS) - {"spatial", "spatial_reversed"}
    else:
        assert offered >= {"spatial", "spatial_reversed"}
    chosen = plan_from(found, {"macs": 0.75}, totals_of(found, x[:1]))
    converted = convert(model, chosen, [x[:6], x[6:]])
    assert list(chosen.converted) == ["0"]
    assert chosen.macs == (cost(model, x[:1]).macs, cost(converted, x[:1]).macs)
    assert chosen.parameters == (cost(model, x[:1]).parameters, cost(converted, x[:1]).parameters)


class Sound(nn.Sequential):
    """(N, 2, samples) to ten scores."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv1d(2, 16, 15, 4, 7, bias=False), nn.BatchNorm1d(16), nn.ReLU(inplace=True)),
            *(nn.Conv1d(16, 24, 9, 2, 4, bias=False), nn.BatchNorm1d(24), nn.ReLU(inplace=True)),
            *(nn.Conv1d(24, 24, 9, padding=8, dilation=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
            nn.Linear(24, 10),
        )


class Film(nn.Sequential):
    """(N, 3, time, H, W) to ten scores."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv3d(3, 8, 3, (1, 2, 2), 1, bias=False), nn.BatchNorm3d(8), nn.ReLU(inplace=True)),
            *(nn.Conv3d(8, 16, 3, padding=1, bias=False), nn.BatchNorm3d(16), nn.ReLU(inplace=True)),
            *(nn.Conv3d(16, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 10)),
        )


@torch.no_grad()
@pytest.mark.parametrize("batch_norm", ["fold", "keep"])
@pytest.mark.parametrize(("kind", "size"), [(Sound, (2, 256)), (Film, (3, 6, 16, 16))])
def test_networks_for_sound_and_films(kind, size, batch_norm):
    model, x = kind(), torch.randn(24, *size)
    model(x)  # statistics
    model.eval()
    found = survey(model, list(x.split(8)), batch_norm=batch_norm)
    assert not found.left_out
    plan = plan_from(found, {"macs": 0.5}, totals_of(found, x[:1]))
    converted, other = convert(model, plan, list(x.split(8))), torch.randn(8, *size)
    assert cost(converted, x[:1]).macs == plan.macs[1] <= plan.macs[0] / 2
    fitted, free = ((net(other) - model(other)).square().sum() for net in (converted, convert(model, plan)))
    assert fitted < free
    program = export(converted, x[:2]).module()
    torch.testing.assert_close(program(other), converted(other), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(converted(other), model(other), rtol=1e-4, atol=1e-5)  # so that means something
