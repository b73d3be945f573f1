"""Model in, the same model out, faster: chains of layers found by structure, fused, and run in rows."""

from .fuse import FusedNetwork, FusionReport, fuse

__all__ = ["FusedNetwork", "FusionReport", "fuse"]
