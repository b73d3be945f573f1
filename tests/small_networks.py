"""Networks of a few thousand parameters for tests of whole commands, each built from a fixed seed."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Classifier(nn.Module):
    """Four convolutions with batch normalization, a shortcut, and ten scores."""

    picture = {"size": (24, 24), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 24, 3, stride=2, padding=1)
        self.third = nn.Conv2d(24, 24, 3, padding=1, bias=False)
        self.third_norm = nn.BatchNorm2d(24)
        self.point = nn.Conv2d(24, 16, 1)
        self.scores = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first_norm(self.first(x)))
        x = F.relu(self.second(x))
        x = x + F.relu(self.third_norm(self.third(x)))
        return self.scores(F.relu(self.point(x)).mean((2, 3)))


class Edges(nn.Module):
    """A map of values in 0..1, of the size of the picture."""

    picture = {"size": (24, 32)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).sigmoid()


class Mobile(nn.Module):
    """Two depthwise-pointwise pairs, one of them squeezed and excited in between, and ten scores."""

    picture = {"size": (24, 24), "mean": (0.5,), "std": (0.2,)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.excited = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.last = nn.Conv2d(16, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.pointwise(F.relu6(self.norm(self.depthwise(self.stem(x))))))
        x = self.excited(x)
        return self.last(x * x.mean((2, 3), keepdim=True).sigmoid()).mean((2, 3))


class Untraceable(nn.Module):
    """What it does depends on what it sees, through a number that no tracer can know."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y.flatten(1)[:, : int(y.abs().sum().item()) % 7 + 1]


class Shared(nn.Module):
    """One convolution called twice, which no plan may convert."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.once = nn.Conv2d(3, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.once(self.twice(self.twice(x))).mean((2, 3))


def classifier() -> Classifier:
    torch.manual_seed(1)
    model = Classifier()
    for norm in (model.first_norm, model.third_norm):
        for tensor, low, high in ((norm.running_mean, -0.5, 0.5), (norm.running_var, 0.5, 2.0)):
            assert tensor is not None
            nn.init.uniform_(tensor, low, high)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    return model


def edges() -> Edges:
    torch.manual_seed(2)
    return Edges()


def mobile() -> Mobile:
    torch.manual_seed(4)
    return Mobile()


def untraceable() -> Untraceable:
    return Untraceable()


def shared() -> Shared:
    torch.manual_seed(3)
    return Shared()


def no_convolution() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 2))
