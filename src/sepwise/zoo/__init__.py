"""Networks we can name. Knows how each is built; knows nothing of files named by users, pictures or commands."""

from collections.abc import Callable

from torch import nn

from .alexnet import AlexNet, alexnet, alexnet_cifar
from .darknet import Darknet, darknet, darknet_cifar, darknet_cifar_separable, darknet_separable
from .fractalnet import FractalNet, fractalnet_cifar, fractalnet_cifar_separable
from .googlenet import GoogLeNet, googlenet, googlenet_cifar
from .hed import HED, hed
from .mobilenet import (
    MobileNet,
    mobilenet_v1,
    mobilenet_v1_cifar,
    mobilenet_v1_cifar_dense,
    mobilenet_v1_dense,
)
from .quicknet import QuickNet, quicknet, quicknet_cifar
from .resnet import ResNet, resnet18, resnet34, resnet50, resnet101, resnet152
from .resnet_cifar import CifarResNet, resnet20, resnet32, resnet44, resnet56, resnet110
from .resnext import ResNeXt, resnext29_8x64d_cifar, resnext50_32x4d, resnext101_32x8d
from .vgg import (
    VGG,
    CifarVGG,
    vgg11,
    vgg11_bn,
    vgg11_cifar,
    vgg13,
    vgg13_bn,
    vgg13_cifar,
    vgg16,
    vgg16_bn,
    vgg16_cifar,
    vgg19,
    vgg19_bn,
    vgg19_cifar,
)
from .xception import Xception, xception, xception_cifar

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    factory.__name__: factory
    for factory in (
        *(alexnet, alexnet_cifar),
        *(darknet, darknet_separable, darknet_cifar, darknet_cifar_separable),
        *(fractalnet_cifar, fractalnet_cifar_separable),
        *(googlenet, googlenet_cifar),
        hed,
        *(mobilenet_v1, mobilenet_v1_dense, mobilenet_v1_cifar, mobilenet_v1_cifar_dense),
        *(quicknet, quicknet_cifar),
        *(resnet18, resnet34, resnet50, resnet101, resnet152),
        *(resnet20, resnet32, resnet44, resnet56, resnet110),
        *(resnext50_32x4d, resnext101_32x8d, resnext29_8x64d_cifar),
        *(vgg11, vgg13, vgg16, vgg19, vgg11_bn, vgg13_bn, vgg16_bn, vgg19_bn),
        *(vgg11_cifar, vgg13_cifar, vgg16_cifar, vgg19_cifar),
        *(xception, xception_cifar),
    )
}

__all__ = [
    "HED",
    "NETWORKS",
    "VGG",
    "AlexNet",
    "CifarResNet",
    "CifarVGG",
    "Darknet",
    "FractalNet",
    "GoogLeNet",
    "MobileNet",
    "QuickNet",
    "ResNeXt",
    "ResNet",
    "Xception",
    "alexnet",
    "alexnet_cifar",
    "darknet",
    "darknet_separable",
    "darknet_cifar",
    "darknet_cifar_separable",
    "fractalnet_cifar",
    "fractalnet_cifar_separable",
    "googlenet",
    "googlenet_cifar",
    "hed",
    "mobilenet_v1",
    "mobilenet_v1_dense",
    "mobilenet_v1_cifar",
    "mobilenet_v1_cifar_dense",
    "quicknet",
    "quicknet_cifar",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext29_8x64d_cifar",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "vgg11_bn",
    "vgg13_bn",
    "vgg16_bn",
    "vgg19_bn",
    "vgg11_cifar",
    "vgg13_cifar",
    "vgg16_cifar",
    "vgg19_cifar",
    "xception",
    "xception_cifar",
]
