"""Networks that hold depthwise-pointwise chains, pictures for them, and the comparison of what came out."""

from typing import Any

import torch
from torch import Tensor, nn

from sepwise.nn import SeparableConv2d

NORM = nn.BatchNorm2d


def chain(
    depthwise: nn.Conv2d | None = None,
    *between: nn.Module,
    pointwise: nn.Module | None = None,
    after: tuple[nn.Module, ...] = (),
) -> nn.Sequential:
    """A stem of 6 channels, a depthwise and a pointwise convolution with what is given around them, and a head."""
    depthwise = depthwise or nn.Conv2d(6, 6, 3, padding=1, groups=6)
    mid = depthwise.out_channels
    pointwise = pointwise or nn.Conv2d(mid, 8, 1)
    stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
    return nn.Sequential(stem, nn.BatchNorm2d(6), nn.SiLU(), depthwise, *between, pointwise, *after, nn.Tanh())


def wide(*arguments: Any, **options: Any) -> nn.Conv2d:
    """A depthwise convolution of six channels."""
    return nn.Conv2d(6, options.pop("out", 6), *arguments, groups=6, **options)


class Block(nn.Module):
    """An inverted residual whose parts can be read elsewhere, called twice, or hooked."""

    def __init__(self, how: str = "") -> None:
        super().__init__()
        self.how = how
        self.expand, self.expand_norm = nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.depthwise, self.norm = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12)
        self.project, self.project_norm = nn.Conv2d(12, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.expand_norm(self.expand(x)))
        y = self.depthwise(y)
        if self.how == "depthwise called twice":
            y = self.depthwise(y)
        z = y
        y = self.act(self.norm(y))
        if self.how == "squeezed and excited":
            y = y * y.mean((2, 3), keepdim=True).sigmoid()
        w = self.project(y)
        if self.how == "pointwise called twice":
            w = w + self.project(y.tanh())
        w = self.project_norm(w)
        if self.how == "read after the norm":
            return x + w + y.mean()
        if self.how == "read before the norm":
            return x + w + z.mean()
        return x + w


def pictures(channels: int = 3, n: int = 2, size: tuple[int, ...] = (9, 11)) -> Tensor:
    return torch.randn(n, channels, *size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@torch.no_grad()
def assert_same(found: nn.Module, wanted: nn.Module, x: Tensor, tolerance: float = 1e-12) -> None:
    expected = wanted(x.clone())
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found(x.clone()), expected, rtol=tolerance, atol=tolerance)


def layers_of(model: nn.Module, kind: type[nn.Module] = SeparableConv2d) -> list[str]:
    return [name.removeprefix("network.") for name, m in model.named_modules() if isinstance(m, kind)]
