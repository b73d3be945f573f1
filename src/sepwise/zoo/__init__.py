"""Networks we can name. Knows how each is built; knows nothing of files named by users, pictures or commands."""

from collections.abc import Callable

from torch import nn

from .hed import HED, hed
from .resnet import CifarResNet, resnet20, resnet32, resnet44, resnet56, resnet110
from .vgg import CifarVGG, vgg11_cifar, vgg13_cifar, vgg16_cifar, vgg19_cifar

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "hed": hed,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet44": resnet44,
    "resnet56": resnet56,
    "resnet110": resnet110,
    "vgg11_cifar": vgg11_cifar,
    "vgg13_cifar": vgg13_cifar,
    "vgg16_cifar": vgg16_cifar,
    "vgg19_cifar": vgg19_cifar,
}

__all__ = [
    "HED",
    "NETWORKS",
    "CifarResNet",
    "CifarVGG",
    "hed",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "vgg11_cifar",
    "vgg13_cifar",
    "vgg16_cifar",
    "vgg19_cifar",
]
