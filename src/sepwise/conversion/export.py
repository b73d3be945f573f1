"""A converted network as a program for `torch.export`: stock operations, any batch size."""

from __future__ import annotations

import copy
import os
from contextlib import redirect_stderr
from io import StringIO

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..errors import ModelError
from ..files import whole_file
from ..nn import FactoredConv
from ..nn.terms import SumOfTerms, why_not_terms


def export(model: nn.Module, example: Tensor) -> ExportedProgram:
    """Export a network for inputs like `example`, batch size free.

    Separable layers with several filters for each channel become sums of layers with one, which stock PyTorch runs
    faster (`nn/terms.py`): the same function.
    Raises ModelError when `torch.export` cannot, or when the program gives another answer than the model.
    """
    laid = _in_terms(copy.deepcopy(model))
    laid.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # other layouts are saved with a doubt
    two = example.expand(2, *example.shape[1:]) if len(example) == 1 else example  # a batch of one would be fixed
    try:
        with redirect_stderr(StringIO()):  # where torch prints the whole graph when it fails
            program = torch.export.export(laid, (two.contiguous(),), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"torch.export cannot export {type(model).__name__}: {first}") from None
    with torch.no_grad():
        wanted, found = model(example), program.module()(example)
    try:
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    except AssertionError as error:
        raise ModelError(f"the exported program differs from the model: {str(error).splitlines()[0]}") from None
    return program


def _in_terms(model: nn.Module) -> nn.Module:
    """The model with every layer that should be one as a sum of chains of rank 1."""
    written: dict[FactoredConv, SumOfTerms] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, FactoredConv) and why_not_terms(module) is None:
            written.setdefault(module, SumOfTerms(module))
            if not name:
                return written[module]
            model.set_submodule(name, written[module])
    return model


def save_program(program: ExportedProgram, path: str | os.PathLike[str]) -> None:
    """Write a program as `.pt2`, whole or not at all."""
    with whole_file(path) as aside:
        torch.export.save(program, aside)
