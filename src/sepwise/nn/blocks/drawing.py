"""`Drawing`: a block written in parts, and which tensors of its parts make up which tensor of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ...errors import UnsupportedError
from .block import Block


class Seam(NamedTuple):
    """Tensors of the whole and those of the parts they are made of.

    whole    a tensor's name, or the name of a module for all its tensors
    parts    the same in the drawing, with `{}` for the number of the path; without `{}`: one tensor under another name
    dim      along which the tensors of the paths lie one after the other in the whole
    """

    whole: str
    parts: str
    dim: int = 0


class Drawing(Block):
    """A block that computes what `whole` computes, drawn in `parts()` paths.

    whole    the block with the fewest operations in the family; it takes the same arguments
    seams    where the tensors of the whole are cut; a tensor not named here is the same in both

    Weights are drawn as those of the whole and then cut: on the CPU the same seed gives the same function.
    """

    whole: ClassVar[type[Block]]
    seams: ClassVar[tuple[Seam, ...]]

    def parts(self) -> int:
        """The number of paths."""
        raise NotImplementedError

    def build(self) -> None:
        """Make the modules, with the weights of a new whole."""
        with torch.random.fork_rng(devices=[]):
            self.draw()
        self.load_state_dict(self.cut(self.whole(**self.arguments).state_dict()))

    def cut(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors named and shaped as those of the whole, as those of this drawing: weights, or their gradients."""
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            seam = next((s for s in self.seams if _under(s.whole, name)), None)
            here = name if seam is None else seam.parts + name.removeprefix(seam.whole)
            if seam is None or "{}" not in here:
                found[here] = tensor
            else:
                pieces = tensor.chunk(self.parts(), seam.dim) if tensor.dim() else [tensor] * self.parts()
                found.update({here.format(i): piece for i, piece in enumerate(pieces)})
        return found

    def join(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `cut`: tensors of this drawing as those of the whole.

        Raises UnsupportedError when the paths have counted different numbers of batches.
        """
        found = dict(tensors)
        for seam in self.seams:
            first = seam.parts.format(0)
            for name in [name for name in tensors if _under(first, name)]:
                rest = name.removeprefix(first)
                pieces = [found.pop((seam.parts + rest).format(i)) for i in range(_count(seam, self.parts()))]
                found[seam.whole + rest] = self._joined(seam.whole + rest, pieces, seam.dim)
        return found

    def _joined(self, name: str, pieces: list[Tensor], dim: int) -> Tensor:
        if len(pieces) == 1:
            return pieces[0]
        if pieces[0].dim():
            return torch.cat(pieces, dim)
        if any(piece != pieces[0] for piece in pieces):
            raise UnsupportedError(
                f"{type(self).__name__}: its paths differ in {name} ({', '.join(str(p.item()) for p in pieces)}), of "
                f"which {self.whole.__name__} has one"
            )
        return pieces[0]


def _under(module: str, name: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _count(seam: Seam, parts: int) -> int:
    return parts if "{}" in seam.parts else 1
