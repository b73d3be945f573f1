"""A fused network as one file that loads without the code of its model."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from ..errors import ModelError, UnsupportedError
from ..files import whole_file
from ..fusion import FusedNetwork
from ..fusion.layered import layered
from ..graph import export
from ..ops import keep_freed_memory, native
from ..sources.exported import load_program
from .about import about, check_name, extra_files, read_about
from .loaded import LoadedNetwork


def save_fused(network: FusedNetwork, example: Tensor, path: str | os.PathLike[str]) -> None:
    """Write a fused network as one file, weights and computation, that `load_fused` reads.

    The file is an archive of `torch.export` whose program calls our operators. What was decided when the network was
    fused stays decided, on whatever machine it is loaded: which convolutions our kernels compute. So does
    `torch.get_float32_matmul_precision()` as it is now, where "medium" counts as "high". The example is not kept.

    network    from `sepwise.fuse`
    example    an input (N, C, *size): the size is that of all pictures to come, the batch is free
    path       ends in .pt2; written whole or not at all
    Raises ModelError for another network, and for one that `torch.export` cannot follow or that would answer
    differently; UnsupportedError without the compiled kernels; OutputError for a place that cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> from torch import nn
    >>> from sepwise import fuse
    >>> model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU6(), nn.Conv2d(8, 4, 1)).eval()
    >>> x = torch.rand(1, 8, 9, 9)
    >>> fused = fuse(model, x)
    >>> with TemporaryDirectory() as folder:
    ...     save_fused(fused, x, f"{folder}/fused.pt2")
    ...     loaded = load_fused(f"{folder}/fused.pt2")
    >>> loaded
    LoadedNetwork(fused, (N, 8, 9, 9) in float32)
    >>> pictures = torch.rand(3, 8, 9, 9)
    >>> torch.equal(loaded(pictures), fused(pictures))
    True
    """
    target = Path(path)
    check_name(target, ".pt2")
    program = program_of(network, example, "save_fused")
    program._example_inputs = None  # pictures are nobody else's business
    with whole_file(target) as aside, aside.open("wb") as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No complete tensor found")  # said of channels_last, which is kept
        torch.export.save(program, file, extra_files=extra_files(about("fused", example)))


def load_fused(path: str | os.PathLike[str]) -> LoadedNetwork:
    """The network in a file of `save_fused`; nothing of its model's code is needed.

    On the machine that wrote it, it answers as the fused network does, to the bit, in rows of layers as that does. The
    file is looked through before it is loaded: no pickle in it is executed, and it can call operators only. Keeps freed
    memory, as `fuse` does.

    Raises ModelError for a file that is missing, damaged or of another kind; UnsupportedError for another format, and
    without the compiled kernels.
    """
    source = Path(path)
    told = read_about(source, "fused")
    check_kernels("load_fused")
    keep_freed_memory()
    program = load_program(source, ours=True).module(check_guards=False)
    for name in ("train", "eval"):  # replaced by refusals on this object; the ordinary methods do no harm here
        program.__dict__.pop(name, None)
    assert isinstance(program, fx.GraphModule)
    return LoadedNetwork(layered(program).requires_grad_(False), told).eval()


def program_of(network: FusedNetwork, example: Tensor, who: str) -> ExportedProgram:
    """The network as a program that calls our operators. `who`: begins the sentence of a refusal."""
    if not isinstance(network, FusedNetwork):
        raise ModelError(f"{who}: given a {type(network).__name__}; expected what sepwise.fuse returns")
    check_kernels(who)
    if not example.is_cpu or any(not t.is_cpu for t in network.state_dict().values()):
        raise UnsupportedError(f"{who}: our kernels run on the CPU; move network and example there, with .cpu()")
    return export(network, example, operators=True)


def check_kernels(who: str) -> None:
    """Raise UnsupportedError, beginning with `who`, without the compiled kernels."""
    if native.PROBLEM is not None:
        raise UnsupportedError(f"{who}: {native.PROBLEM}")
