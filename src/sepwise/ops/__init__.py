"""Functions on tensors. Knows shapes and numbers; knows nothing of modules, models or files."""

from .separable_conv2d import separable_conv2d

__all__ = ["separable_conv2d"]
