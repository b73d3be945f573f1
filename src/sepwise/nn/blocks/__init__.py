"""Blocks that papers explain separable convolutions by. Knows layers; knows nothing of whole networks.

All take the same leading arguments (`Block`), so that any of them can be stacked in the place of another.
"""

from .block import Block
from .blueprint import as_blueprint, from_blueprint
from .grouped import GroupedBlock, SegmentedBlock
from .hybrid import Hybrid, HybridReformulated, SplitSum
from .inception import InceptionModule, InceptionWidths
from .maps import (
    as_grouped,
    as_hybrid,
    as_hybrid_reformulated,
    as_reformulated,
    as_separable,
    as_simplified,
    as_split_sum,
    from_grouped,
)
from .redraw import carried
from .resnext import ResNeXtConcatenated, ResNeXtModule, ResNeXtPaths
from .separable import SeparableBlock
from .simplified import ExtremeInception, GroupedInception, ReformulatedInception, SimplifiedInception

__all__ = [
    "Block",
    "ExtremeInception",
    "GroupedBlock",
    "GroupedInception",
    "Hybrid",
    "HybridReformulated",
    "InceptionModule",
    "InceptionWidths",
    "ReformulatedInception",
    "ResNeXtConcatenated",
    "ResNeXtModule",
    "ResNeXtPaths",
    "SegmentedBlock",
    "SeparableBlock",
    "SimplifiedInception",
    "SplitSum",
    "as_blueprint",
    "as_grouped",
    "as_hybrid",
    "as_hybrid_reformulated",
    "as_reformulated",
    "as_separable",
    "as_simplified",
    "as_split_sum",
    "carried",
    "from_blueprint",
    "from_grouped",
]
