"""A network as a graph of operators: traced, rewritten, norms folded, checked against itself, exported."""

from .export import export, save_program

__all__ = ["export", "save_program"]
