"""Layer scale goes into the convolution before it, however it is written; what only looks like it stays."""

# pyright: reportArgumentType=false, reportCallIssue=false

import pytest
import torch
from chains import assert_same, pictures
from plain_networks import settle
from torch import Tensor, nn

from sepwise.fusion import fuse
from sepwise.graph import export


class Scale(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.gamma = how, nn.Parameter(torch.rand(4) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "of the last axis":
            return x * self.gamma[: x.shape[3]].view(1, 1, 1, -1)
        if self.how == "twice":
            return x * self.gamma.view(-1, 1, 1) * self.gamma.view(-1, 1, 1)
        return x * self.gamma.view(1, -1, 1, 1)


class Scaled(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.stem, self.depthwise = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm, self.first, self.second = nn.LayerNorm(4, 1e-3), nn.Linear(4, 12), nn.Linear(12, 4)
        self.project, self.bn, self.scale = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), Scale(how)
        self.gamma = nn.Parameter(torch.rand(4) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(x)
        if self.how.startswith("between permutations"):
            y = self.second(torch.relu(self.first(self.norm(y.permute(0, 2, 3, 1)))))
            y = self.gamma * y if self.how.endswith("first") else y * self.gamma
            return x + y.permute(0, 3, 1, 2)
        return x + self.scale(self.bn(self.project(y)))


@pytest.mark.parametrize("how", ["between permutations", "between permutations, first"])
def test_scales_on_the_last_axis(how):
    model = settle(Scaled(how)).double()
    fused = fuse(model, pictures())
    assert fused.report.fused == {"depthwise": "depthwise 3x3, normalize, pointwise 4 to 12, relu"}
    assert fused.report.alone["second"] == "pointwise 12 to 4, add"
    assert_same(fused, model, pictures())


def test_a_module_that_scales():
    model = settle(Scaled("a module")).double()
    fused = fuse(model, pictures())
    assert fused.report.fused == {"depthwise": "depthwise 3x3, pointwise 4 to 4, add"}
    assert_same(fused, model, pictures())


@pytest.mark.parametrize("how", ["of the last axis", "twice"])
def test_a_module_that_does_something_else_stays(how):
    model = settle(Scaled(how)).double()
    x = pictures(size=(9, 4))
    fused = fuse(model, x)
    assert fused.report.fused == {"depthwise": "depthwise 3x3, pointwise 4 to 4"}
    assert_same(fused, model, x)


def test_a_product_of_sizes_stays_an_integer():
    """As a tensor, `torch.export` could not follow it."""

    class Turned(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x.reshape(x.shape[0] * x.shape[1], -1).reshape(-1, 4, 9, 11)
            return self.project(self.depthwise(x))

    model, x = settle(Turned("")), pictures().float()
    program = export(fuse(model, x), x).module()
    assert_same(program, model, pictures(n=3).float(), 1e-5)
