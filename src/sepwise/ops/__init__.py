"""Functions on tensors. Knows shapes and numbers; knows nothing of modules, models or files."""

from .freed_memory import keep_freed_memory
from .fused_block import fused_block
from .separable_conv2d import separable_conv2d

__all__ = ["fused_block", "keep_freed_memory", "separable_conv2d"]
