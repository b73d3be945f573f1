"""The maps between blocks that are the same function: a new block, the same weights otherwise arranged, each way."""

from __future__ import annotations

from typing import TypeVar

from ...errors import UnsupportedError
from .block import Block
from .grouped import GroupedBlock
from .hybrid import Hybrid, HybridReformulated, SplitSum
from .redraw import family, redraw
from .resnext import ResNeXtModule
from .separable import SeparableBlock
from .simplified import GroupedInception, ReformulatedInception, SimplifiedInception

B = TypeVar("B", bound=Block)

GROUPED = (GroupedBlock, GroupedInception, ResNeXtModule)


def as_grouped(block: Block) -> Block:
    """The same function with one grouped convolution in the place of separate ones.

    block      SegmentedBlock, which gives a GroupedBlock; SimplifiedInception, ReformulatedInception or
               ExtremeInception: a GroupedInception; ResNeXtPaths or ResNeXtConcatenated: a ResNeXtModule
    returns    a new block; weights, running statistics, dtype, device, training flag are those of `block`
    Raises UnsupportedError for another block, and, as all maps here: when a norm that sees several channels at once
    stands in the paths (the arrangements then differ), when paths differ in what the whole has only once, and when the
    block was changed after it was made.

    >>> import torch
    >>> from sepwise.nn.blocks import SegmentedBlock
    >>> block = SegmentedBlock(4, 8).double()
    >>> x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    >>> torch.allclose(as_grouped(block)(x), block(x), rtol=0, atol=1e-12)
    True
    """
    whole = family(block)
    if whole not in GROUPED:
        raise UnsupportedError(
            f"as_grouped: {type(block).__name__} has no grouped form; expected a drawing of "
            f"{', '.join(g.__name__ for g in GROUPED)}"
        )
    return redraw(block, whole)


def from_grouped(block: Block, drawing: type[B]) -> B:
    """The inverse of `as_grouped`: the same function with separate convolutions, as `drawing` arranges them.

    Raises UnsupportedError as `as_grouped`, and when `drawing` is no drawing of `block`.

    >>> from sepwise.nn.blocks import ResNeXtPaths
    >>> len(from_grouped(ResNeXtModule(16, 16, cardinality=8), ResNeXtPaths).paths)
    8
    """
    return redraw(block, drawing)


def as_separable(block: SeparableBlock) -> SeparableBlock:
    """SplitSum, Hybrid or HybridReformulated as a SeparableBlock, which keeps the shortcut where there is one.

    Raises UnsupportedError as `as_grouped`.

    >>> as_separable(SplitSum(4, 8)).conv
    SeparableConv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False, depth_multiplier=1)
    """
    return redraw(block, SeparableBlock)


def as_split_sum(block: SeparableBlock) -> SplitSum:
    """A SeparableBlock, or a hybrid one, without a shortcut, as a SplitSum.

    Raises UnsupportedError as `as_grouped`, and for a block with a shortcut.

    >>> len(as_split_sum(SeparableBlock(4, 8)).paths)
    4
    """
    return redraw(block, SplitSum)


def as_hybrid(block: SeparableBlock) -> Hybrid:
    """A SeparableBlock, a SplitSum or a HybridReformulated as a Hybrid. Raises UnsupportedError as `as_grouped`.

    >>> as_hybrid(SplitSum(4, 8)).pointwise
    Conv2d(4, 8, kernel_size=(1, 1), stride=(1, 1), bias=False)
    """
    return redraw(block, Hybrid)


def as_hybrid_reformulated(block: SeparableBlock) -> HybridReformulated:
    """A SeparableBlock, a SplitSum or a Hybrid as a HybridReformulated. Raises UnsupportedError as `as_grouped`.

    >>> as_hybrid_reformulated(Hybrid(4, 8)).paths[0].pointwise
    Conv2d(1, 8, kernel_size=(1, 1), stride=(1, 1), bias=False)
    """
    return redraw(block, HybridReformulated)


def as_simplified(block: GroupedInception) -> SimplifiedInception:
    """A ReformulatedInception or GroupedInception as a SimplifiedInception. Raises UnsupportedError as `as_grouped`.

    >>> len(as_simplified(ReformulatedInception(8, 12, segments=3)).towers)
    3
    """
    return redraw(block, SimplifiedInception)


def as_reformulated(block: GroupedInception) -> ReformulatedInception:
    """A SimplifiedInception or GroupedInception as a ReformulatedInception. Raises UnsupportedError as `as_grouped`.

    >>> as_reformulated(SimplifiedInception(8, 12, segments=3)).mix.conv
    Conv2d(8, 12, kernel_size=(1, 1), stride=(1, 1), bias=False)
    """
    return redraw(block, ReformulatedInception)
