"""Separable convolution of pictures: the contract in `api.py`, its meaning in `reference.py`, the rest is speed."""

from .api import separable_conv2d

__all__ = ["separable_conv2d"]
