"""Where a walk keeps its values: in memory up to a limit, in temporary files beyond it."""

from __future__ import annotations

import os
import tempfile
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import ModelError

MEMORY = 2 << 30  # bytes
SMALL = 1 << 16  # bytes; below, a file would cost more than it saves


class Shelf:
    """Takes values and gives back equal ones that may lie in files, mapped into memory: the system writes them out and
    reads them again as it needs room. A file has no name from the moment it is mapped, and goes with its tensor.

    limit     bytes of tensors that may stay in memory
    in_memory, in_files     bytes that are alive now
    """

    def __init__(self, limit: int = MEMORY) -> None:
        self.limit = limit
        self.in_memory = self.in_files = 0

    def put(self, value: Any) -> Any:
        """The value, with each tensor in it kept in memory or moved to a file."""
        return pytree.tree_map_only(Tensor, self._put, value)

    def _put(self, tensor: Tensor) -> Tensor:
        size = tensor.nbytes
        if size < SMALL or tensor.device.type != "cpu":
            return tensor
        if self.in_memory + size <= self.limit:
            self.in_memory += size
            weakref.finalize(tensor, self._forget_memory, size)
            return tensor
        kept = _in_file(tensor)
        self.in_files += size
        weakref.finalize(kept, self._forget_file, size)
        return kept

    def _forget_memory(self, size: int) -> None:
        self.in_memory -= size

    def _forget_file(self, size: int) -> None:
        self.in_files -= size


def _in_file(tensor: Tensor) -> Tensor:
    """A copy in a file that only this tensor knows; the memory format is kept."""
    try:
        with tempfile.NamedTemporaryFile(prefix="sepwise-") as file:
            _reserve(file.fileno(), tensor.nbytes)
            flat = torch.from_file(file.name, shared=True, size=tensor.numel(), dtype=tensor.dtype)
    except OSError as error:
        raise ModelError(
            f"{tensor.nbytes / 1e6:.0f} MB of activations do not fit among the temporary files: {error}; give fewer or "
            "smaller pictures, or set TMPDIR to a folder with more room"
        ) from error
    dense = torch.empty_like(tensor, device="meta")  # the strides that a copy has
    return flat.as_strided(dense.shape, dense.stride()).copy_(tensor)


def _reserve(handle: int, size: int) -> None:
    """Room on the disk: a mapped file that finds none when it is written to would end the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        for start in range(0, size, 1 << 20):
            os.pwrite(handle, bytes(min(1 << 20, size - start)), start)
