"""`Parallel`: several paths side by side, each on the whole input or on its own channels, then joined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Join = Literal["concatenate", "sum"]


class Parallel(nn.ModuleList):
    """y = join(path_1(x_1), path_2(x_2), ...)

    paths    modules that give pictures of one size
    join     "concatenate": along the channels; "sum": added, all having as many channels
    split    how many channels each path gets, in order; None: each gets the whole input
    bias     number of output channels: a bias, at first 0, is added to the sum; None: none

    >>> paths = Parallel([nn.Identity(), nn.Identity()], "sum", split=(2, 2))
    >>> paths(torch.arange(4.0).view(1, 4, 1, 1)).flatten()
    tensor([2., 4.])
    """

    def __init__(
        self, paths: Iterable[nn.Module], join: Join, split: Sequence[int] | None = None, bias: int | None = None
    ) -> None:
        super().__init__(paths)
        self.join, self.split = join, None if split is None else list(split)
        self.bias = None if bias is None else nn.Parameter(torch.zeros(bias))

    def forward(self, x: Tensor) -> Tensor:
        inputs = (x,) * len(self) if self.split is None else torch.split(x, self.split, 1)
        outputs = [path(inputs[i]) for i, path in enumerate(self)]
        if self.join == "concatenate":
            return torch.cat(outputs, 1)
        total = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return total if self.bias is None else total + self.bias.view(-1, 1, 1)

    def extra_repr(self) -> str:
        return f"join={self.join!r}, split={self.split}"
