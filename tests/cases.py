"""The named cases of `separable_conv2d`, each for a reason; tests and benchmarks read the same table."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One call: (batch, channels, *size) -> out_channels."""

    name: str
    channels: int
    out_channels: int
    size: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    multiplier: int = 1
    batch: int = 2
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    bias: bool = True
    depthwise_bias: bool = False
    between: str | None = None
    activation: str | None = None


CASES = [
    Case("one pixel", 3, 2, (1, 1), kernel=(1, 1)),
    Case("one channel", 1, 1, (5, 6), padding=1),
    Case("kernel fills the picture", 2, 3, (4, 5), kernel=(4, 5)),
    Case("one past a vector", 17, 33, (9, 9), padding=1),
    Case("exact tiles", 64, 128, (14, 14), padding=1, batch=1),
    Case("long reduction", 512, 8, (3, 3), padding=1, batch=1),
    Case("1 x 7 kernel", 4, 6, (6, 11), kernel=(1, 7), padding=(0, 3)),
    Case("even kernel, same", 4, 6, (7, 8), kernel=(2, 4), padding="same"),
    Case("stride 2, same, even size", 4, 6, (8, 6), stride=2, padding="same"),
    Case("stride 2, same, odd size", 4, 6, (9, 7), stride=2, padding="same"),
    Case("stride past the kernel, same", 2, 3, (11, 10), kernel=(2, 2), stride=3, padding="same"),
    Case("stride 2 x 3, valid", 4, 6, (9, 10), stride=(2, 3), padding="valid"),
    Case("dilation 2 x 1", 4, 6, (9, 8), dilation=(2, 1), padding=(2, 1)),
    Case("dilation, same", 4, 6, (9, 8), dilation=2, padding="same"),
    Case("uneven padding", 4, 6, (6, 5), padding=((0, 1), (2, 0))),
    Case("no bias", 4, 6, (6, 5), bias=False),
    Case("multiplier 2", 6, 8, (7, 6), multiplier=2, padding=1),
    Case("multiplier 5, 5 x 5, stride 2", 3, 4, (9, 9), kernel=(5, 5), multiplier=5, stride=2, padding=2),
    Case("multiplier 3, one channel", 1, 4, (7, 6), multiplier=3),
    Case("biases and activations", 5, 7, (6, 7), padding=1, depthwise_bias=True, between="relu", activation="relu6"),
    Case("multiplier 4, all at once", 3, 5, (8, 7), (3, 2), 4, 2, (2, 1), "same", 1, True, True, "relu6", "relu"),
    Case("empty batch", 4, 6, (6, 5), padding=1, multiplier=2, batch=0),
]
