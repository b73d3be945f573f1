"""The fit follows what the network computes, not how its modules are listed.

Layers before a fitted one do not change any more, so what it was fitted on can be seen in the finished network: the
inputs that reach it there, and what the dense network answers. Least squares leaves an error that no middle value of
the chain explains; on any other inputs, or for any other answers, it would.
"""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from plain_networks import Branching, Residual, settle
from torch import Tensor, nn

from sepwise.conversion import Choice, Plan, apply, convert, fit
from sepwise.graph.network import trace
from sepwise.nn import FactoredConv


def conv(into: int = 6, out: int = 6) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, padding=1)


class OtherOrder(nn.Module):
    """Runs its layers in another order than it lists them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv(6, 4), conv(), conv(), conv(3, 6)])

    def forward(self, x: Tensor) -> Tensor:
        for i in (3, 1, 2, 0):
            x = torch.tanh(self.layers[i](x))
        return x


class Concatenated(nn.Module):
    """As in a DenseNet: each layer reads what all before it answered."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv(3 + 4 * i, 4) for i in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, F.relu(layer(x))], 1)
        return x


class AddedInPlace(nn.Module):
    """Shortcuts by +=, where what is added to is read again, and activations that write into their input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.three = conv(3), conv(), conv(), conv()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x += self.one(x)
        y = self.two(x)
        y += x
        y.mul_(0.5)
        z = self.three(y)
        z += y
        return self.relu(z) + x


class CalledTwice(nn.Module):
    """One convolution and one normalization called twice, each time on other values, between layers called once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.both, self.last = conv(3), conv(), conv()
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.both(self.first(x)))
        return self.last(self.norm(torch.tanh(self.both(torch.tanh(x)))))


class Dropping(nn.Module):
    """Dropout of both kinds; nothing may be dropped while pictures are run."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = conv(3), conv(), conv()
        self.drop = nn.Dropout2d(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.tanh(self.one(x)))
        x = F.dropout(torch.tanh(self.two(x)), 0.5, self.training)
        return self.three(x)


class Gated(nn.Module):
    """Control flow that following it fixes: a loop over sizes, a test of shapes, a layer that is never reached."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.never, self.three = conv(3), conv(), conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.one(x))
        for _ in range(int(x.size(1)) - 2):
            y = torch.tanh(self.two(y)) + y
        if x.shape[1] > 7:
            y = self.never(y)
        return self.three(y)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "other order": OtherOrder,
    "concatenated": Concatenated,
    "added in place": AddedInPlace,
    "residual": Residual,
    "called twice": CalledTwice,
    "dropping": Dropping,
    "branching": Branching,
    "gated": Gated,
}


@pytest.fixture
def plain_least_squares(monkeypatch):
    monkeypatch.setattr(fit, "RIDGE", 1e-9)
    monkeypatch.setattr(fit, "RIDGES", (1e-12,))
    monkeypatch.setattr(apply, "POSITIONS", 10**9)


@torch.no_grad()
def met(model: nn.Module, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the layer `name` reads and answers while the model runs on x."""
    found: list[tuple[Tensor, Tensor]] = []
    layer = model.get_submodule(name)
    hook = layer.register_forward_hook(lambda _m, inputs, y: found.append((inputs[0].clone(), y.clone())))
    model(x.clone())
    hook.remove()
    assert len(found) == 1
    return found[0]


def unexplained(layer: FactoredConv, inputs: Tensor, wanted: Tensor) -> float:
    """Largest correlation between a middle value of a depthwise chain and what the chain misses of `wanted`."""
    with torch.no_grad():
        geometry = layer.conv.geometry
        middle = F.conv2d(
            inputs,
            layer.weights[0],
            stride=geometry.stride,
            padding=[p[0] for p in geometry.padding],
            groups=layer.conv.in_channels,
        )
        error = wanted - layer(inputs)
    a, b = (t.transpose(0, 1).flatten(1) for t in (middle, error))
    centred = a - a.mean(1, keepdim=True)
    sizes = centred.norm(dim=1).unsqueeze(1) * b.norm(dim=1)
    products = centred @ b.T / sizes.clamp_min(1e-12)  # a channel that an activation cut off is 0
    drift = b.mean(1).abs() / b.square().mean(1).sqrt()
    return max(float(products.abs().max()), float(drift.max()))


def convertible(model: nn.Module, x: Tensor) -> list[str]:
    network = trace(model, x)
    return [s.name for s in network.sites if network.conv(s).padding_mode == "zeros"]


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_each_layer_is_fitted_on_what_reaches_it(plain_least_squares, make):
    model, x = settle(make()).double(), torch.randn(8, 3, 12, 12, dtype=torch.float64)
    names = convertible(model, x)
    choices = {name: Choice("depthwise", 1, "by hand", 1, 1, 1, 1) for name in names}
    model.train(isinstance(model, Dropping))  # as a user might leave it
    converted = convert(model, Plan(choices, "keep"), [x[:3], x[3:]], iterations=2)
    model.eval()
    assert {n for n, m in converted.named_modules() if isinstance(m, FactoredConv)} == set(names)
    differs = 0
    for name in names:
        layer = converted.get_submodule(name)
        inputs, (before, wanted) = met(converted, name, x)[0], met(model, name, x)
        assert unexplained(layer, inputs, wanted) < 1e-6
        if not torch.allclose(inputs, before):  # the check must tell both networks' inputs apart
            assert unexplained(layer, before, wanted) > 1e-3
            differs += 1
    assert differs >= len(names) - 1 - isinstance(model, CalledTwice | Concatenated)
    assert len(names) >= 2


def test_a_layer_called_twice_stays_as_it_was():
    model, x = settle(CalledTwice()), torch.randn(4, 3, 12, 12)
    choices = {name: Choice("depthwise", 1, "by hand", 1, 1, 1, 1) for name in ("first", "last")}
    converted = convert(model, Plan(choices, "fold"), [x])
    assert torch.equal(converted.both.weight, model.both.weight)
    assert trace(model).left_out == {"both": "it is called 2 times, each time on other inputs"}


def test_a_layer_that_is_never_reached_is_no_layer_of_the_plan():
    model, x = settle(Gated()), torch.randn(4, 3, 12, 12)
    assert convertible(model, x) == ["one", "two", "three"]
