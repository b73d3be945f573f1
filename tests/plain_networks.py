"""Networks of a few layers, each with one feature that conversion must respect; all take (N, 3, H, W)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def settle(model: nn.Module) -> nn.Module:
    """Statistics and affine parameters of every normalization as after training: none is 0 or 1. Evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is not None and module.running_var is not None:
                nn.init.uniform_(module.running_mean, -1, 1)
                nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


class Residual(nn.Module):
    """Two convolutions with normalization around a shortcut, and ten scores."""

    def __init__(self, inplace: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.body_norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=inplace)
        self.scores = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        y = self.body_norm(self.body(x))
        y += x
        return self.scores(F.relu(y, inplace=True).mean((2, 3)))


class Branching(nn.Module):
    """Python decides by the size of the picture: fx cannot follow it, torch.export can."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.third = nn.Conv2d(8, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        if x.shape[2] > 4:
            x = x + F.relu_(self.second(x))
        for _ in range(int(x.size(1)) // 8):
            x = self.third(x)
        return x.reshape(x.shape[0], -1)


class InPlace(nn.Module):
    """Every way of writing into a value, results used and results dropped, values read before and after."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.module = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.how == "module":
            y = self.module(x)
        elif self.how == "module, result dropped":
            self.module(x)
            y = x
        elif self.how == "functional":
            y = F.relu(x, inplace=True)
        elif self.how == "functional, by position":
            y = F.relu(x, True)
        elif self.how == "functional, result dropped":
            F.leaky_relu(x, 0.2, inplace=True)
            y = x
        elif self.how == "torch":
            y = torch.relu_(x)
        elif self.how == "method":
            y = x.relu_()
        elif self.how == "method, result dropped":
            x.mul_(3).clamp_(min=-0.5)
            y = x
        else:
            assert self.how == "operator"
            y = x.clone()
            y *= 2
            y += x
            y -= 0.25
        z = self.second(y)
        z += x  # what `x` holds now: PyTorch wrote into it
        return z


IN_PLACE = (
    "module",
    "module, result dropped",
    "functional",
    "functional, by position",
    "functional, result dropped",
    "torch",
    "method",
    "method, result dropped",
    "operator",
)


class Joined(nn.Module):
    """A concatenation and a split whose second half is read late; answers a dict, a tuple inside."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 6, 3, padding=1)
        self.right = nn.Conv2d(3, 6, 5, padding=2)
        self.after = nn.Conv2d(12, 8, 3, stride=2)
        self.small = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, object]:
        batch = x.shape[0]
        both = F.relu(torch.cat([self.left(x), self.right(x)], 1))
        parts = self.after(both).chunk(2, 1)
        late = torch.cat([self.small(parts[0]), parts[1]], 1)
        return {"maps": (both, late), "flat": late.reshape(batch, -1)}


class Twice(nn.Module):
    """One convolution called twice, one that bears two names, one whose weight is read elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.once = nn.Conv2d(3, 8, 3, padding=1)
        self.also_once = self.once
        self.read = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(x))
        return self.read(self.also_once(x)) * self.read.weight.norm()


class Optional(nn.Module):
    """Arguments with defaults, tested in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0, name: str = "") -> Tensor:
        y = self.conv(x)
        if mask is not None:
            y = y * mask
        return y * scale
