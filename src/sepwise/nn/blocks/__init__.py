"""Blocks that papers explain separable convolutions by. Knows layers; knows nothing of whole networks.

All take the same leading arguments (`Block`), so that any of them can be stacked in the place of another.
"""

from .block import Block
from .inception import InceptionModule, InceptionWidths
from .resnext import ResNeXtModule

__all__ = ["Block", "InceptionModule", "InceptionWidths", "ResNeXtModule"]
