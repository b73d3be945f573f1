"""FractalNet: columns of different depth that meet again and again, trained with whole paths dropped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ShapeError
from .picture import picture_of
from .unit import draw_weights, scaled, unit


class FractalNet(nn.Module):
    """Class scores of a picture: (N, 3, H, W) -> (N, classes), 32 x 32 for five blocks.

        B blocks, a 2x2 maximum after each -> mean -> linear
        block:  f_1 = unit,   f_k = (f_(k-1) after f_(k-1)) joined with a unit,   a join is the mean of what meets
        unit:   conv 3x3 -> dropout -> norm -> ReLU

    widths       channels of each of the B blocks
    columns      C: column k = 0 .. C-1 has 2^k units in each block, so the longest path has `depth` = B * 2^(C-1)
    width        every layer has that many times its channels
    separable    True: depthwise 3x3 then 1x1, nothing in between, for each convolution that does not read the picture
    dropout      at the last block; it grows from 0 at the first in equal steps: 0, 0.1, 0.2, 0.3, 0.4 in section 4.1
    drop_path    the chance that a join loses an input, each on its own; one always stays (local drop-path, section 3)
    alone        the chance that a training batch goes through one column alone, drawn for the whole network (global
                 drop-path); then only its weights get gradients. Without dropping, as in evaluation, all columns join
    picture      the mean and deviation of ImageNet

    Larsson, Maire and Shakhnarovich, FractalNet, ICLR 2017, arXiv 1605.07648. Columns join before the maximum, as in
    their figure 1; their own generator of networks takes the maximum of each column first. The separable twin: Ghosh
    2017, arXiv 1701.04489, figure 5, who says no more.
    Raises ShapeError for no blocks, no columns, and when width is not positive.

    >>> network = FractalNet((8, 16), columns=3, classes=5)
    >>> network(torch.zeros(2, 3, 32, 32)).shape, network.depth
    (torch.Size([2, 5]), 8)
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        columns: int = 3,
        classes: int = 10,
        width: float = 1.0,
        *,
        separable: bool = False,
        dropout: float = 0.4,
        drop_path: float = 0.15,
        alone: float = 0.5,
    ) -> None:
        super().__init__()
        if not widths or columns < 1:
            raise ShapeError(f"FractalNet: widths={widths}, columns={columns}: expected one block and column or more")
        self.picture = picture_of(32)
        self.columns, self.alone, self.depth = columns, alone, len(widths) * 2 ** (columns - 1)
        self.blocks = nn.ModuleList()
        channels = 3
        for number, wide in enumerate(widths):
            out_channels, rate = scaled(wide, width), dropout * number / max(1, len(widths) - 1)
            rates = {"dropout": rate, "drop_path": drop_path}
            block = FractalBlock(channels, out_channels, columns, separable=separable, opens=number == 0, **rates)
            self.blocks.append(block)
            channels = out_channels
        self.linear = nn.Linear(channels, classes)
        draw_weights(self)

    def forward(self, x: Tensor, column: int | None = None) -> Tensor:
        """Scores of all columns joined, or of one alone: 0 the shortest, `columns` - 1 the deepest, a plain network."""
        if column is None and self.training:
            column = self.drawn_column()
        for block in self.blocks:
            x = F.max_pool2d(block(x, column), 2)
        return self.linear(x.mean((2, 3)))

    def drawn_column(self) -> int | None:
        """The column that a training batch goes through alone, or None: all of them, joins dropping inputs."""
        if torch.rand((), device="cpu").item() >= self.alone:
            return None
        return int(torch.randint(self.columns, (), device="cpu"))


class FractalBlock(nn.Module):
    """f_C: column k has 2^k units; those that end at the same step are joined, and all read on from the join.

    opens    True: the block reads the picture, and the convolutions that do are dense
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        columns: int,
        *,
        separable: bool,
        opens: bool,
        dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.columns = nn.ModuleList()
        for column in range(columns):
            units = nn.Sequential(unit(in_channels, out_channels, separable=separable and not opens, dropout=dropout))
            for _ in range(2**column - 1):
                units.append(unit(out_channels, out_channels, separable=separable, dropout=dropout))
            self.columns.append(units)

    def forward(self, x: Tensor, column: int | None = None) -> Tensor:
        if column is not None:
            return self.columns[column](x)
        reads, steps = [x] * len(self.columns), 2 ** (len(self.columns) - 1)
        units = [column.children() for column in self.columns]
        for step in range(1, steps + 1):
            ending = [k for k in range(len(self.columns)) if step * 2**k % steps == 0]
            joined = self.join([next(units[k])(reads[k]) for k in ending])
            for k in ending:
                reads[k] = joined
        return reads[0]

    def join(self, inputs: list[Tensor]) -> Tensor:
        """The mean of the inputs; in training of those that stay."""
        if self.training and len(inputs) > 1:
            stay = torch.rand(len(inputs), device="cpu") >= self.drop_path
            if not stay.any():
                stay[torch.randint(len(inputs), (), device="cpu")] = True
            inputs = [x for x, stays in zip(inputs, stay.tolist(), strict=True) if stays]
        return sum(inputs[1:], inputs[0]) / len(inputs)


def fractalnet_cifar(classes: int = 10, width: float = 1.0) -> FractalNet:
    """3 columns, 5 blocks, 20 layers deep: 33.7 M parameters, 845 M multiplications."""
    return FractalNet(classes=classes, width=width)


def fractalnet_cifar_separable(classes: int = 10, width: float = 1.0) -> FractalNet:
    """3.9 M parameters, 104 M multiplications."""
    return FractalNet(classes=classes, width=width, separable=True)
