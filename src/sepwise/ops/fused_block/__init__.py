"""Expand, filter each channel, normalize, mix channels, add: the blocks of mobile networks as one operation."""

from .api import fused_block, runs_compiled, stock_operations

__all__ = ["fused_block", "runs_compiled", "stock_operations"]
