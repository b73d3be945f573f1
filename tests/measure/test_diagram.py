"""What a diagram says of a module: its operations, what each gets, and nothing else."""

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepwise import zoo
from sepwise.errors import ModelError
from sepwise.measure import Diagram, diagram
from sepwise.nn import BlueprintConv2d, SeparableConv2d, blocks


def drawn(module: nn.Module, channels: int = 4, size: int = 8) -> Diagram:
    return diagram(module, torch.zeros(2, channels, size, size))


def short(found: Diagram) -> list[tuple[Any, ...]]:
    """Operation, channels and what follows, without the input and the output."""
    assert (found.boxes[0].operation, found.boxes[-1].operation) == ("input", "output")
    return [(box.operation, box.channels, *box.then) for box in found.boxes[1:-1]]


def test_a_residual_block_box_by_box() -> None:
    found = drawn(blocks.ResNeXtModule(4, 4, cardinality=2, stride=2))
    assert found.title == "ResNeXtModule"
    reduce, spatial, expand, shortcut, total = found.boxes[1:-1]
    assert (spatial.kernel, spatial.stride, spatial.groups, spatial.shape) == ((3, 3), (2, 2), 2, (2, 4, 4))
    assert (reduce.channels, reduce.then) == ((4, 2), ("batchnorm2d", "relu"))
    assert (expand.then, shortcut.then, total.then) == (("batchnorm2d",), ("batchnorm2d",), ("relu",))
    assert found.arrows == ((0, 1), (1, 2), (2, 3), (0, 4), (3, 5), (4, 5), (5, 6))
    assert found.boxes[0].shape, found.boxes[-1].shape == ((4, 8, 8), (4, 4, 4))


def test_paths_are_split_and_added() -> None:
    found = drawn(blocks.SplitSum(3, 5, norm=None, between="elu"), 3)
    path = [("convolution", (1, 1), "elu"), ("convolution", (1, 5))]
    assert short(found) == [("split", None), *path * 3, ("sum", None, "bias", "relu")]
    assert [end for start, end in found.arrows if start == 1] == [2, 4, 6]
    assert [start for start, end in found.arrows if end == 8] == [3, 5, 7]


def test_layers_of_ours_are_their_steps() -> None:
    layer = SeparableConv2d(
        4, 6, 3, padding=1, stride=2, between="relu", between_norm=nn.BatchNorm2d, activation="silu"
    )
    steps = [("convolution", (4, 4), "batchnorm2d", "relu"), ("convolution", (4, 6), "silu")]
    found = drawn(nn.Sequential(layer, nn.Hardswish()))
    assert short(found) == [steps[0], (*steps[1], "hardswish")]
    assert [box.shape for box in found.boxes[1:3]] == [(4, 4, 4), (6, 4, 4)]
    pointwise, depthwise = drawn(BlueprintConv2d(4, 6, 3)).boxes[1:-1]
    assert (pointwise.kernel, depthwise.kernel, depthwise.groups) == ((1, 1), (3, 3), 6)


class Odd(nn.Module):
    """What is written in other ways than the blocks are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4), nn.Dropout()
        self.pool, self.mean = nn.MaxPool2d((2, 1), 2), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.drop(x))
        a = F.relu(y) + self.norm(y)  # both read y: each is a box of its own
        b, c = x.chunk(2, 1)
        a += torch.cat([c, b], 1)
        return self.mean(self.pool(a)).flatten(1)


def test_other_ways_of_writing() -> None:
    boxes = [
        *(("convolution", (4, 4)), ("activation", None, "relu"), ("norm", None, "groupnorm"), ("sum", None)),
        *(("split", None), ("concatenate", None), ("sum", None)),
        *(("pool", None, "maxpool2d"), ("pool", None, "adaptiveavgpool2d"), ("flatten", None)),
    ]
    found = drawn(Odd())
    assert short(found) == boxes
    assert [box.kernel for box in found.boxes if box.operation == "pool"] == [(2, 1), None]
    assert all(start < end for start, end in found.arrows)


def test_sums_of_one_picture_with_itself_and_of_sums() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + x) + x

    found = drawn(Twice())
    assert short(found) == [("sum", None)]
    assert found.arrows == ((0, 1), (0, 1), (0, 1), (1, 2))

    class Early(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return (x + x) + self.conv(x)  # the first sum runs before the convolution

    assert short(drawn(Early())) == [("sum", None), ("convolution", (4, 4)), ("sum", None)]


def test_whole_networks() -> None:
    found = drawn(zoo.resnet20(), 3, 32)
    assert sum(box.operation == "convolution" for box in found.boxes) == 19
    assert sum(box.operation == "sum" for box in found.boxes) == 9


def test_plain_data_and_an_untouched_module() -> None:
    module = blocks.Hybrid(3, 3, between_norm="same").train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found = drawn(module, 3).to_dict()
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(found | {"title": "Hybrid"}))
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_refusals() -> None:
    with pytest.raises(ModelError, match=r"diagram: Hybrid cannot be followed on \(2, 4, 8, 8\): .*sum exactly to 4"):
        drawn(blocks.Hybrid(3, 3))

    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match=r"diagram: Deciding cannot be followed on .*control flow"):
        drawn(Deciding())
