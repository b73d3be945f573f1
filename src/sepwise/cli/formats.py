"""What `--format` names: the files that a fused network can be written to, and what writes each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError

if TYPE_CHECKING:
    from torch import Tensor

    from ..fusion import FusedNetwork

FILES = {
    "weights": ("model.safetensors",),
    "stock": ("model.pt2",),
    "fused": ("fused.pt2",),
    "onnx": ("model.onnx",),
    "compiled": ("compiled.pt2", "_C.so"),
}
NEEDS = {"weights": ("safetensors",), "onnx": ("onnx", "onnxscript")}
USUAL = ("weights", "stock", "fused")


def check_formats(formats: Sequence[str], dtype: str) -> None:
    """Refuse, before any work is done, what this machine cannot write of a network in `dtype`."""
    from ..extras import require
    from ..saving.compiled import check_compiler
    from ..saving.fused import check_kernels

    if "onnx" in formats and dtype == "bfloat16":
        raise OutputError("--format onnx: runtimes compute no convolutions in bfloat16; leave --dtype bfloat16 out")
    for name in formats:
        for module in NEEDS.get(name, ()):
            require(module, f"--format {name}")
        if name in ("fused", "compiled"):
            check_kernels(f"--format {name}")
    if "compiled" in formats:
        check_compiler()


def write(fused: FusedNetwork, example: Tensor, formats: Sequence[str], folder: Path) -> list[str]:
    """Write the network in these formats; the names of the files."""
    from ..graph import export, save_program
    from ..ops.native import LIBRARY
    from ..saving import save_compiled, save_fused, save_onnx
    from ..sources.weights import save_weights

    def compiled(path: Path) -> None:
        save_compiled(fused, example, path)
        assert LIBRARY is not None
        shutil.copyfile(LIBRARY, path.with_name("_C.so"))

    writers: dict[str, Callable[[Path], None]] = {
        "weights": lambda path: save_weights(fused, path),
        "stock": lambda path: save_program(export(fused, example), path),
        "fused": lambda path: save_fused(fused, example, path),
        "onnx": lambda path: save_onnx(fused, example, path),
        "compiled": compiled,
    }
    for name in formats:
        writers[name](folder / FILES[name][0])
    return [file for name in formats for file in FILES[name]]
