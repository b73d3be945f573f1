"""Programs that call our operators, read as layers again."""

from typing import Any

import pytest
import torch
from chains import Block
from plain_networks import settle
from torch import Tensor, fx, nn

from sepwise.fusion import fuse
from sepwise.fusion.layered import layered
from sepwise.graph import export
from sepwise.nn import FusedBlock
from sepwise.ops import fused_block, native

pytestmark = pytest.mark.skipif(native.PROBLEM is not None, reason=native.PROBLEM or "")


def read(network: Any, x: Tensor) -> Any:
    program = export(network, x, operators=True).module(check_guards=False)
    assert isinstance(program, fx.GraphModule)
    return layered(program)


def blocks(network: nn.Module) -> dict[str, str]:
    return {name: repr(module) for name, module in network.named_modules() if isinstance(module, FusedBlock)}


def test_the_same_layers_under_the_same_names(no_clock):
    pair = [nn.Conv2d(4, 8, (3, 2), (1, 2), groups=4), nn.ReLU6(), nn.Conv2d(8, 5, 1, bias=False)]
    stem = [nn.Conv2d(3, 4, 3, 2, 1), nn.SiLU(inplace=True), Block(), Block("squeezed and excited")]
    model = settle(nn.Sequential(*stem, *pair, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7)))
    x = torch.randn(2, 3, 17, 20, generator=torch.Generator().manual_seed(0))
    fused = fuse(model, x)
    found = read(fused, x)
    kept, known = blocks(found.network.network), blocks(fused.network)
    assert known.items() <= kept.items()
    others = {name: repr(found.network.network.get_submodule(name)) for name in kept.keys() - known.keys()}
    assert others == {"4": "FusedBlock(depthwise 3x2 times 2 stride 1x2, relu6, pointwise 4 to 5)"}
    assert torch.equal(found(x), fused(x))
    assert not [n for n in found.network.graph.nodes if "sepwise" in str(n.target)]
    assert {*found.state_dict()} == {f"network.{name}" for name in fused.state_dict()}


class Twice(nn.Module):
    """One weight that two calls read, and one that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.pointwise, self.other = (nn.Parameter(torch.randn(4, 4, 1, 1), requires_grad=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = fused_block(x, self.pointwise, activation="relu")
        return fused_block(fused_block(x, self.pointwise), 2 * self.other)


def test_what_is_no_layer_stays_a_call():
    network, x = Twice(), torch.randn(1, 4, 5, 6)
    found = read(network, x)
    assert sum("fused_block" in str(n.target) for n in found.network.graph.nodes) == 3
    assert torch.equal(found(x), network(x))
