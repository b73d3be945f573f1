"""The check of `bench structural` that conversion at full rank changes nothing."""

import pytest
import torch
from torch import Tensor, nn

from bench.structural import at_full_rank
from sepwise.errors import SepwiseError


class Sized(nn.Module):
    """What it does depends on the size of its input, as in timm's vgg16: only an example tells."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.second(x if x.shape[-1] > 4 else x.mean((2, 3), keepdim=True))


@pytest.mark.parametrize("form", ["spatial", "depthwise"])
def test_a_network_that_only_an_example_explains(form):
    found = at_full_rank(Sized().eval(), form, torch.randn(2, 3, 9, 8))
    assert found["layers"] == 2
    assert found["difference"] <= 1e-4 < found["fault"]


def test_a_fault_that_is_not_seen_is_refused():
    silent = Sized().eval()
    nn.init.zeros_(silent.second.weight)
    with pytest.raises(SepwiseError, match="at full rank is off by"):
        at_full_rank(silent, "spatial", torch.randn(2, 3, 9, 8))
