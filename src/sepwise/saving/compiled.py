"""A fused network as machine code: AOTInductor's package, which needs torch and our library of operators to run."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError, UnsupportedError
from ..files import whole_file
from ..fusion import FusedNetwork
from ..graph.export import check_answer
from ..graph.network import sentence
from ..ops import keep_freed_memory
from .about import about, check_name, extra_files, read_about
from .fused import check_kernels, program_of
from .loaded import LoadedNetwork


def save_compiled(network: FusedNetwork, example: Tensor, path: str | os.PathLike[str]) -> None:
    """Compile a fused network ahead of time: our operators by our kernels, everything else by TorchInductor.

    The file loads where neither the model nor sepwise is installed, given torch and our library of operators, which is
    one file (`sepwise.ops.native.LIBRARY`):

        torch.ops.load_library("_C.so")
        network = torch._inductor.aoti_load_package("compiled.pt2")

    That loader does not look at what it is given: pictures of another shape or dtype give nonsense (docs/fuse.md).
    `load_compiled` does look. Compiling takes a minute and a C++ compiler; the code is for the instruction set and the
    version of torch that compiled it. The answers are the network's, up to rounding.

    network    from `sepwise.fuse`
    example    an input (N, C, *size): the size is that of all pictures to come, the batch is free
    path       ends in .pt2; written whole or not at all
    Raises ModelError for another network, and for one that cannot be compiled or would answer differently;
    UnsupportedError without a C++ compiler or the compiled kernels; OutputError for a place that cannot be written.
    """
    from torch.export.pt2_archive._package import package_pt2  # with Inductor, a second to import

    target = Path(path)
    check_name(target, ".pt2")
    check_compiler()
    program = program_of(network, example, "save_compiled")
    args, kwargs = program.example_inputs or ((), {})
    with whole_file(target) as aside, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own remarks on its own calls
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            options = {"aot_inductor.package": True}
            files: Any = torch._inductor.aot_compile(program.module(check_guards=False), args, kwargs, options=options)
        except Exception as error:  # what a compiler may find has no end
            raise ModelError(f"save_compiled: the network cannot be compiled: {sentence(error)}") from None
        with aside.open("wb") as file:  # given a name, the archive would bear it
            package_pt2(file, aoti_files=files, extra_files=extra_files(about("compiled", example)))
        check_answer(torch._inductor.aoti_load_package(str(aside)), network, example, "the compiled network")


def load_compiled(path: str | os.PathLike[str]) -> LoadedNetwork:
    """The network in a file of `save_compiled`, with pictures checked before it sees them.

    The file holds machine code, which runs: load it only when you would run a program of its author. Keeps freed
    memory, as `fuse` does.
    Raises ModelError for a file that is missing, damaged or of another kind, or that this machine cannot load;
    UnsupportedError for another format, and without the compiled kernels.
    """
    source = Path(path)
    told = read_about(source, "compiled")
    check_kernels("load_compiled")
    keep_freed_memory()
    try:
        return LoadedNetwork(torch._inductor.aoti_load_package(str(source)), told)
    except RuntimeError as error:
        raise ModelError(
            f"{path}, compiled with torch {told.torch}, cannot be loaded by torch {torch.__version__} here: "
            f"{sentence(error)}"
        ) from None


def check_compiler() -> None:
    """Raise UnsupportedError where Inductor finds no C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise UnsupportedError(
            "save_compiled finds no C++ compiler: install g++ or clang++, or name one in CXX"
        ) from None
