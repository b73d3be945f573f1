"""The VGG networks: published sizes for ImageNet and CIFAR, timm's network, depths that do not exist."""

import pytest
import torch
from twins import counted, difference, drawn, needs_timm, sizes, sizes_of_timm

from sepwise import zoo
from sepwise.errors import ShapeError
from sepwise.sources import load_model
from sepwise.zoo.unit import draw_weights

# Parameters of the common implementation (whose convolutions have a bias before the norm), millions of multiplications;
# Li et al. 2017 give 3.13e8 for VGG-16.
PUBLISHED = {
    "vgg11_cifar": (9_231_114, 153),
    "vgg13_cifar": (9_416_010, 228),
    "vgg16_cifar": (14_728_266, 313),
    "vgg19_cifar": (20_040_522, 398),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_for_cifar(name):
    found = counted(zoo.NETWORKS[name])
    convs = [m for m in zoo.NETWORKS[name](width=0.125).modules() if isinstance(m, torch.nn.Conv2d)]
    biases = 8 * sum(conv.out_channels for conv in convs)
    assert (found.parameters + biases, round(found.macs / 1e6)) == PUBLISHED[name]
    assert len(convs) == int(name[3:5]) - 3


@pytest.mark.parametrize(("depth", "millions"), [(11, 133), (13, 133), (16, 138), (19, 144)])
def test_published_sizes(depth, millions):
    assert round(counted(zoo.NETWORKS[f"vgg{depth}"]).parameters / 1e6) == millions  # table 2


@needs_timm
@pytest.mark.parametrize("name", [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")])
def test_sizes_of_timm(name):
    assert sizes_of_timm(name, 224) == sizes(counted(zoo.NETWORKS[name]))


@needs_timm
def test_convolutions_of_timm_fit_and_give_the_same():
    with torch.device("meta"):  # most of the weights are in the linear layers
        ours, theirs = zoo.vgg11_bn().features, load_model("timm:vgg11_bn").model.get_submodule("features")
    draw_weights(theirs.to_empty(device="cpu"))
    ours.to_empty(device="cpu").double().load_state_dict(drawn(theirs).state_dict())
    assert difference(ours, theirs, torch.randn(1, 3, 64, 64)) < 1e-10


def test_other_depths_are_refused():
    for network in (zoo.CifarVGG, zoo.VGG):
        with pytest.raises(ShapeError, match="depth=12: expected one of 11, 13, 16, 19"):
            network(12)
