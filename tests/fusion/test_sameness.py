"""A fused network that answers differently is refused; rounding, also a network's own, is excused."""

# pyright: reportIndexIssue=false, reportGeneralTypeIssues=false

import pytest
import torch
from chains import NORM, Block, chain, pictures
from plain_networks import settle
from torch import nn

from sepwise.errors import ModelError
from sepwise.fusion import blocks, fuse
from sepwise.graph import sameness
from sepwise.nn import FusedBlock


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_wrong_answer_is_refused(monkeypatch, dtype):
    """One channel of one layer lost, in a network of three blocks."""
    parts = [part for _ in range(3) for part in (Block(), nn.Tanh())]
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), *parts)).to(dtype)
    x = pictures().to(dtype)
    good = fuse(model, x).report
    assert good.difference <= 0.25 * good.budget

    class Faulty(FusedBlock):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            if self.depthwise is not None:
                self.pointwise[:, -1] = 0

    monkeypatch.setattr(blocks, "FusedBlock", Faulty)
    with pytest.raises(ModelError, match=r"would answer differently: by .* where .* can be rounding"):
        fuse(model, x)


def test_a_network_that_rounds_badly_by_itself_is_compared_with_its_own_rounding(monkeypatch):
    """A bias of 3,000 that the norm takes away again: float32 keeps four digits of what remains."""
    model = settle(nn.Sequential(*chain(None, NORM(6), nn.ReLU())[:-1]))
    with torch.no_grad():
        model[3].bias.fill_(3e3)
        model[4].running_mean.fill_(3e3)
        model[4].running_var.fill_(0.1)
    x = pictures().float()
    report = fuse(model, x).report
    assert 1e-4 < report.difference <= report.budget < 5e-2
    monkeypatch.setattr(sameness, "OWN_ROUNDINGS", 0)
    with pytest.raises(ModelError, match="would answer differently"):
        fuse(model, x)
