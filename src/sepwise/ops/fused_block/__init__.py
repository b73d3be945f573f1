"""Expand, filter each channel, normalize, mix channels, add: the blocks of mobile networks as one operation."""

from .api import fused_block

__all__ = ["fused_block"]
