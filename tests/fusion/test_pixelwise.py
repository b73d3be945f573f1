"""ConvNeXt's block, in both its drawings and with parts that must stay, fused and as it was."""

# pyright: reportArgumentType=false, reportCallIssue=false

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from chains import assert_same, pictures
from plain_networks import settle
from torch import Tensor, nn

from sepwise.fusion import fuse
from sepwise.sources.models import load_model

FUSED = {"1.depthwise": "depthwise 7x7, normalize, pointwise 4 to 12, gelu"}
ALONE = {"0": "dense 3x3, 3 to 4", "1.second": "pointwise 12 to 4, add"}


class OverChannels(nn.LayerNorm):
    """A norm over axis 1, as networks on (N, C, H, W) write it for themselves."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class OwnGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class ConvNeXt(nn.Module):
    def __init__(self, how: str = "") -> None:
        super().__init__()
        self.how, convs = how, how == "convolutions"
        self.depthwise = nn.Conv2d(4, 4, 7, padding=3, groups=4)
        self.norm = OverChannels(4, 1e-3) if convs else nn.LayerNorm((11, 4) if how == "two axes" else 4, 1e-3)
        self.first = nn.Conv2d(4, 12, 1) if convs else nn.Linear(4, 12, bias=how != "no biases")
        self.act: nn.Module = nn.Softmax(-1) if how == "a softmax" else OwnGelu()
        self.second = nn.Conv2d(12, 4, 1) if convs else nn.Linear(12, 4, bias=how != "no biases")
        self.gamma = nn.Parameter(torch.rand(4) + 0.5)
        for parameter in self.norm.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x)
        if self.how != "convolutions":
            y = y.permute(0, 3, 2, 1) if self.how == "the picture turned" else y.permute(0, 2, 3, 1)
        z = self.norm(y)
        y = self.second(self.act(self.first(z)))
        if self.how == "the norm read twice":
            y = y + z
        if self.how != "convolutions":
            y = y.permute(0, 3, 2, 1) if self.how == "the picture turned" else torch.permute(y, (0, 3, 1, 2))
        if self.how == "scaled by the picture":
            return x + y * x
        return x + y.mul(self.gamma.reshape(1, -1, 1, 1))


def network(how: str = "") -> nn.Module:
    return settle(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), ConvNeXt(how), nn.Tanh()))


@pytest.mark.parametrize("how", ["", "convolutions", "no biases"])
def test_both_drawings_become_two_operations(how: str):
    model = network(how).double()
    fused = fuse(model, pictures())
    assert fused.report.fused == FUSED
    assert fused.report.alone == ALONE
    assert_same(fused, model, pictures())
    assert_same(fused, model, pictures(n=1, size=(8, 9)))
    model, x = model.float(), pictures().float()
    assert_same(fuse(model, x), model, x, 1e-5)


@pytest.mark.parametrize(
    "how",
    ["two axes", "the picture turned", "the norm read twice", "scaled by the picture", "hooked", "shared"],
)
def test_what_is_something_else_stays(how: str):
    model = network(how).double()
    block = model.get_submodule("1")
    assert isinstance(block, ConvNeXt)
    if how == "hooked":
        block.first.register_forward_hook(lambda module, inputs, output: output.exp())
    if how == "shared":
        block.act = nn.Sequential(block.second, block.first).eval()
    fused = fuse(model, pictures())
    assert fused.report.fused == (FUSED if how == "scaled by the picture" else {})
    assert_same(fused, model, pictures())


@pytest.mark.parametrize("how", ["a softmax", "hooked", "first hooked", "another size"])
def test_a_module_that_keeps_the_size_stays_between_two_permutations(how: str):
    """Softmax over channels, as the response norm of ConvNeXtV2, depends on the layout; a hook on it is kept."""
    model = network("a softmax").double()
    block = model.get_submodule("1")
    assert isinstance(block, ConvNeXt)
    if how == "hooked":
        block.act = nn.Linear(12, 12)
        block.act.register_forward_hook(lambda module, inputs, output: output.exp())
    if how == "first hooked":
        block.first.register_forward_hook(lambda module, inputs, output: output.exp())
    if how == "another size":
        block.act = nn.GLU()
        block.second = nn.Linear(6, 4)
    model = model.double().eval()
    fused = fuse(model, pictures())
    stays = how in ("first hooked", "another size")
    assert fused.report.fused == ({} if stays else {"1.depthwise": "depthwise 7x7, normalize, pointwise 4 to 12"})
    assert fused.report.alone == ({"0": ALONE["0"]} if stays else ALONE)
    assert_same(fused, model, pictures())
    assert_same(fuse(fused, pictures()), model, pictures(n=3))


def test_an_activation_of_another_class_is_known_by_what_it_does():
    class Leaky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.maximum(x, 1e-6 * x)

    class Swish(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.sigmoid()

    for act, says in ((Swish(), "pointwise 3 to 4, silu"), (Leaky(), "pointwise 3 to 4")):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), act, nn.Tanh()).double().eval()
        fused = fuse(model, pictures())
        assert fused.report.alone == {"0": says}
        assert_same(fused, model, pictures())


def test_a_norm_after_reflected_edges_stays():
    model = network("convolutions").double()
    model.get_submodule("1.depthwise").padding_mode = "reflect"
    model.get_submodule("1.depthwise")._reversed_padding_repeated_twice = [3, 3, 3, 3]
    fused = fuse(model, pictures())
    assert "which one operation knows for pictures padded by zeros" in fused.report.left["1.depthwise"]
    assert_same(fused, model, pictures())


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize("name", ["convnext_atto", "test_convnext", "test_convnext2"])
def test_convnext_of_timm(name: str):
    model, x = settle(load_model(f"timm:{name}").model), torch.randn(1, 3, 64, 64)
    fused = fuse(model, x)
    assert len(fused.report.fused) == sum(name.endswith("conv_dw") for name, _ in model.named_modules())
    assert all("normalize" in says for says in fused.report.fused.values())
    assert fused.report.left == {}
    assert_same(fused, model, x, 1e-4)
