"""Separable convolutions that keep their promise: know, convert, run and prove."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import nn, zoo
    from .conversion import Plan, convert, plan, recover, synthetic_batches
    from .factor import Factors, factorize
    from .fusion import fuse
    from .measure import Inspection, inspect
    from .ops import keep_freed_memory, separable_conv2d
    from .saving import load_compiled, load_fused, save_compiled, save_fused, save_onnx

__version__ = "0.1.0"

# Public names, loaded on first use: reading records or building a report must not cost an import of torch.
_HOME = {
    "Factors": "factor",
    "Inspection": "measure",
    "Plan": "conversion",
    "convert": "conversion",
    "factorize": "factor",
    "fuse": "fusion",
    "inspect": "measure",
    "keep_freed_memory": "ops",
    "load_compiled": "saving",
    "load_fused": "saving",
    "nn": None,
    "plan": "conversion",
    "recover": "conversion",
    "save_compiled": "saving",
    "save_fused": "saving",
    "save_onnx": "saving",
    "separable_conv2d": "ops",
    "synthetic_batches": "conversion",
    "zoo": None,
}

__all__ = [
    "Factors",
    "Inspection",
    "Plan",
    "convert",
    "factorize",
    "fuse",
    "inspect",
    "keep_freed_memory",
    "load_compiled",
    "load_fused",
    "nn",
    "plan",
    "recover",
    "save_compiled",
    "save_fused",
    "save_onnx",
    "separable_conv2d",
    "synthetic_batches",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sepwise' has no attribute {name!r}")
    home = _HOME[name]
    return import_module(f".{name}", __name__) if home is None else getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
