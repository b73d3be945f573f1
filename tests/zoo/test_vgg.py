"""The VGG networks for CIFAR: published sizes, and depths that do not exist."""

import pytest
import torch

from sepwise import zoo
from sepwise.errors import ShapeError
from sepwise.measure import cost

# Parameters of the common implementation (whose convolutions have a bias before the norm), millions of multiplications;
# Li et al. 2017 give 3.13e8 for VGG-16.
PUBLISHED = {
    "vgg11_cifar": (9_231_114, 153),
    "vgg13_cifar": (9_416_010, 228),
    "vgg16_cifar": (14_728_266, 313),
    "vgg19_cifar": (20_040_522, 398),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    model, x = zoo.NETWORKS[name]().eval(), torch.zeros(1, 3, 32, 32)
    found = cost(model, x)
    convs = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    biases = sum(conv.out_channels for conv in convs)
    assert (found.parameters + biases, round(found.macs / 1e6)) == PUBLISHED[name]
    assert model(x).shape == (1, 10)
    assert len(convs) == int(name[3:5]) - 3


def test_other_depths_are_refused():
    with pytest.raises(ShapeError, match="depth=12: expected one of 11, 13, 16, 19"):
        zoo.CifarVGG(12)
