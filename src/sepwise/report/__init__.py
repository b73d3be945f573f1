"""Records and pictures in, one self-contained HTML file out. Knows no torch, no models and how nothing was measured."""

from . import pictures
from .diagram import draw
from .page import build

__all__ = ["build", "draw", "pictures"]
