"""Batch normalization folded away: the same function in float64, wherever folding is allowed, and only there."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

import pytest
import torch
import torch.nn.functional as F
from plain_networks import Branching, Residual, settle
from torch import Tensor, nn

from sepwise.conversion import convert, plan
from sepwise.graph.fold import fold_norms
from sepwise.graph.network import trace

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def folded(model: nn.Module, example: Tensor | None = None):
    network = trace(model, example)
    return network, fold_norms(network)


@torch.no_grad()
def assert_same(network, model: nn.Module, x: Tensor, tolerance: float = 1e-10) -> None:
    wanted = model(x.clone())
    for found in (network.model(x.clone()), network.graph(x.clone())):
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_normalization_after_a_convolution_is_folded(axes, bias, affine):
    model = nn.Sequential(CONV[axes](3, 6, 3, bias=bias, groups=3), NORM[axes](6, affine=affine, eps=1e-2), nn.ReLU())
    settle(model).double()
    x = torch.randn(2, 3, *[7] * axes, dtype=torch.float64)
    network, names = folded(model)
    assert names == ["0"]
    assert isinstance(network.model[1], nn.Identity)
    assert isinstance(model[1], NORM[axes])
    assert_same(network, model, x)
    with torch.no_grad():
        network.model[0].weight[0] *= 1.001  # a planted fault: one channel a part in a thousand too large
    with pytest.raises(AssertionError):
        assert_same(network, model, x)


def test_normalizations_without_statistics_or_in_training_stay():
    without = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    network, names = folded(without)
    assert names == []
    assert isinstance(network.model[1], nn.BatchNorm2d)
    network = trace(settle(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))))
    network.model[1].train()
    assert fold_norms(network) == []
    hooked = settle(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    hooked[1].register_forward_hook(lambda module, inputs, output: output + 1)
    assert folded(hooked)[1] == []


class ReadTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class SharedNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3)
        self.two = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.one(x)) * self.norm(self.two(x))


class NotDirectly(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(F.relu(self.conv(x)))


@pytest.mark.parametrize("make", [ReadTwice, SharedNorm, NotDirectly], ids=lambda m: m.__name__)
def test_normalizations_that_others_need_stay(make):
    model = settle(make()).double()
    network, names = folded(model)
    assert names == []
    assert_same(network, model, torch.randn(2, 3, 6, 6, dtype=torch.float64))


class NormDropAct(nn.BatchNorm2d):
    """As timm's: normalization, then dropout, then an activation, in one module."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Dropout(0.5), nn.SiLU()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return self.act(self.drop(super().forward(input)))


class NormAndSomething(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input) + 1


def test_what_comes_with_a_normalization_stays_behind():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 3), NormDropAct(4), nn.Conv2d(4, 4, 3))).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network, names = folded(model)
    assert names == ["0"]
    assert network.model[1][1] is not model[1].act
    assert isinstance(network.model[1][1], nn.SiLU)
    assert_same(network, model, x)
    other = settle(nn.Sequential(nn.Conv2d(3, 4, 3), NormAndSomething(4))).double()
    network, names = folded(other)
    assert names == []
    assert_same(network, other, x)


def test_an_exported_program_is_folded():
    model, x = settle(Residual()).double(), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    program = torch.export.export(model, (x,), strict=False).module(check_guards=False)
    network, names = folded(program)
    assert names == ["stem", "body"]
    assert not any("batch_norm" in node.name for node in network.graph.graph.nodes)
    assert_same(network, model, x)


def test_a_model_followed_by_export_is_folded_in_the_model_too():
    model, x = settle(Branching()).double(), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    network, names = folded(model, x)
    assert names == ["first"]
    assert isinstance(network.model.norm, nn.Identity)
    assert_same(network, model, x)

    class Act(Branching):
        def __init__(self):
            super().__init__()
            self.norm = NormDropAct(8)

    model = settle(Act()).double()
    network, names = folded(model, x)
    assert names == ["first"]
    assert_same(network, model, x)


@pytest.mark.parametrize(("batch_norm", "kind"), [("keep", nn.BatchNorm2d), ("fold", nn.Identity)])
def test_batch_norm_is_kept_or_folded_as_asked(batch_norm, kind):
    model, x = settle(Residual()), torch.randn(6, 3, 8, 8)
    chosen = plan(model, x, budget={"macs": 0.6}, batch_norm=batch_norm, forms=("depthwise",))
    assert chosen.batch_norm == batch_norm
    converted = convert(model, chosen, [x])
    assert type(converted.norm) is kind
    assert type(converted.body_norm) is kind
