"""A network as a file: fused, compiled, ONNX; and back, or in other runtimes. Knows formats; changes no network."""

from .compiled import load_compiled, save_compiled
from .fused import load_fused, save_fused
from .loaded import LoadedNetwork
from .onnx import save_onnx

__all__ = ["LoadedNetwork", "load_compiled", "load_fused", "save_compiled", "save_fused", "save_onnx"]
