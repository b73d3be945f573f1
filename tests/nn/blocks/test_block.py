"""What all blocks share: sizes, the same leading arguments, refusals, a graph that conversion can follow."""

from typing import Any

import pytest
import torch
from torch import fx, nn

from sepwise.errors import ShapeError, UnsupportedError
from sepwise.nn import FactoredConv, blocks
from sepwise.nn.blocks import Block

BLOCKS = [b for b in vars(blocks).values() if isinstance(b, type) and issubclass(b, Block) and b is not Block]
by_block = pytest.mark.parametrize("block", BLOCKS)


SETTINGS = [
    *({}, {"stride": 2}, {"kernel_size": 5}, {"activation": None}),
    *({"norm": None}, {"bias": True}, {"norm": None, "bias": False}),
]


@by_block
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_sizes(block: Any, settings: dict[str, Any]) -> None:
    stride = settings.get("stride", 1)
    module = block(8, 12, **settings)
    assert module(torch.ones(2, 8, 7, 6)).shape == (2, 12, -(-7 // stride), -(-6 // stride))
    has_bias = any(name.endswith("bias") and "norm" not in name for name, _ in module.named_parameters())
    assert has_bias == settings.get("bias", settings.get("norm", True) is None)
    assert any(isinstance(m, nn.BatchNorm2d) for m in module.modules()) == ("norm" not in settings)
    assert any(isinstance(m, nn.ReLU) for m in module.modules()) == ("activation" not in settings)
    assert type(module)(**type(module).arguments_from(module))(torch.ones(2, 8, 7, 6)).shape[1] == 12


class Tracer(fx.Tracer):
    """As that of `sepwise.conversion`: layers of ours are not entered."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, FactoredConv) or super().is_leaf_module(m, module_qualified_name)


@by_block
def test_blocks_stack_and_can_be_followed(block: Any) -> None:
    network = nn.Sequential(block(3, 4, activation="silu"), block(4, 8, stride=2), block(8, 8)).eval()
    x = torch.randn(2, 3, 9, 9)
    followed = fx.GraphModule(network, Tracer().trace(network))
    torch.testing.assert_close(followed(x), network(x), rtol=0, atol=0)
    y = network[0](x)
    program = torch.export.export(network[0], (x,), strict=False)
    torch.testing.assert_close(program.module()(x), y)


@by_block
def test_refusals(block: Any) -> None:
    name = block.__name__
    with pytest.raises(ShapeError, match=f"^{name}: kernel_size=4: expected an odd one, half of it is the padding"):
        block(8, 8, kernel_size=4)
    with pytest.raises(ShapeError, match=f"^{name}: stride=0: expected an integer >= 1"):
        block(8, 8, stride=0)
    with pytest.raises(ShapeError, match=f"^{name}: in_channels=2.0: expected an integer >= 1"):
        block(2.0, 8)
    with pytest.raises(UnsupportedError, match=f"^{name}: activation='tanh' is unknown; give None, 'relu'"):
        block(8, 8, activation="tanh")
    with pytest.raises(ShapeError, match=rf"^{name}: expected an input \(N, 8, H, W\), got \(1, 3, 4, 4\)"):
        block(8, 8)(torch.ones(1, 3, 4, 4))
    with pytest.raises(ShapeError, match=r"got \(8, 4, 4\)"):
        block(8, 8)(torch.ones(8, 4, 4))
