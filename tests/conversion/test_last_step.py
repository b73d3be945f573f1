"""What the last step meets, against the map of the earlier steps written out in full."""

import pytest
import torch
from torch import Tensor

from sepwise.conversion.last_step import LastStep, last_step
from sepwise.factor import FORMS, compose
from sepwise.geometry import ConvShape, Geometry

LAYERS = {
    "dense": ConvShape(6, 8, Geometry.of((3, 3))),
    "uneven kernel": ConvShape(5, 4, Geometry.of((5, 3))),
    "grouped": ConvShape(6, 8, Geometry.of((3, 3)), groups=2),
    "one row": ConvShape(4, 6, Geometry.of((1, 5))),
    "depthwise": ConvShape(6, 6, Geometry.of((5, 3)), groups=6),
    "depthwise, two outputs each": ConvShape(3, 6, Geometry.of((3, 3)), groups=3),
    "as many groups as outputs": ConvShape(6, 3, Geometry.of((3, 3)), groups=3),
    "one axis": ConvShape(6, 8, Geometry.of((3,))),
    "three axes": ConvShape(4, 6, Geometry.of((3, 2, 4))),
}


def middle_of(conv: ConvShape, first: list[Tensor], steps: tuple[ConvShape, ...]) -> Tensor:
    """T (g, b, mid, P): what a chain whose last step passes one middle value on composes to, for each of them."""
    last = steps[-1]
    mid = last.parameters // last.out_channels
    rows = []
    for m in range(mid):
        unit = torch.zeros(last.groups, mid, dtype=torch.float64)
        unit[:, m] = 1
        unit = unit.reshape(last.groups, *last.weight_shape[1:])
        rows.append(compose([*first, unit], [*(s.groups for s in steps[:-1]), last.groups]).flatten(1))
    return torch.stack(rows, 1).unflatten(0, (conv.groups, -1))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("conv", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("given", [True, False], ids=["gram", "identity"])
def test_it_meets_what_the_earlier_steps_make_of_the_patches(form, conv, given):
    if FORMS[form].why_not(conv):
        pytest.skip(str(FORMS[form].why_not(conv)))
    full = FORMS[form].full_rank(conv)
    rank = (max(1, full[0] // 2), max(1, full[1] // 2)) if isinstance(full, tuple) else max(1, full // 2)
    steps = FORMS[form].steps(conv, rank)
    first = [torch.randn(s.weight_shape, dtype=torch.float64) for s in steps[:-1]]
    patch = conv.parameters // conv.out_channels
    rows = torch.randn(conv.groups, patch, 2 * patch, dtype=torch.float64)
    gram = rows @ rows.mT if given else torch.eye(patch, dtype=torch.float64).expand(conv.groups, -1, -1)
    cross = torch.randn(conv.groups, conv.out_channels // conv.groups, patch, dtype=torch.float64)

    met = last_step(conv, first, steps, gram if given else None, cross)
    middle = middle_of(conv, first, steps)
    torch.testing.assert_close(met.normal, middle @ gram.unsqueeze(1) @ middle.mT)
    parts = cross.reshape(*middle.shape[:2], -1, patch)
    torch.testing.assert_close(met.wanted, parts @ middle.mT)
    if met.seen is not None:
        torch.testing.assert_close(met.seen, middle @ gram.unsqueeze(1))
    assert (met.seen is None) == (form == "blueprint" and conv.out_channels > conv.groups)


def test_the_solution_is_where_the_loss_is_least():
    rows = torch.randn(2, 1, 5, 9, dtype=torch.float64)
    met = LastStep(rows @ rows.mT, torch.randn(2, 1, 3, 5, dtype=torch.float64))
    best = met.solve(0.0)
    for _ in range(5):
        assert bool((met.loss(best + 1e-3 * torch.randn_like(best)) > met.loss(best)).all())
    torch.testing.assert_close(met.loss(best), -(best * met.wanted).sum((-2, -1)))
