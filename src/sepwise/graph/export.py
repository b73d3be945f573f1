"""A network as a program for `torch.export`: stock operations, or our operators among them; any batch size."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..errors import ModelError
from ..files import whole_file
from ..nn import FactoredConv
from ..nn.terms import SumOfTerms, why_not_terms
from ..ops.exporting import operators_exported
from .sameness import answer, judged


def export(model: nn.Module, example: Tensor, *, operators: bool = False) -> ExportedProgram:
    """Export a network for inputs like `example`, batch size free.

    operators    True: what our operators compute stays a call of theirs, and weights stay laid out as they are; such a
                 program runs where `torch.ops.sepwise` is loaded. False: stock operations
    Separable layers with several filters for each channel become, in stock operations, sums of layers with one, which
    PyTorch runs faster (`nn/terms.py`): the same function.
    Raises ModelError when `torch.export` cannot, or when the program gives another answer than the model.
    """
    laid = model
    if not operators:
        laid = _in_terms(copy.deepcopy(model))
        laid.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # others are saved with a doubt
    two = example.expand(2, *example.shape[1:]) if len(example) == 1 else example  # a batch of one would be fixed
    try:
        ours = operators_exported() if operators else nullcontext()
        with ours, redirect_stderr(StringIO()):  # where torch prints the whole graph when it fails
            program = torch.export.export(laid, (two.contiguous(),), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"torch.export cannot export {type(model).__name__}: {first}") from None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # where the code of the model lay, on the machine that had it
    check_answer(program.module(), model, example, "the exported program")
    return program


def check_answer(made: Callable[[Tensor], Any], model: nn.Module, x: Tensor, what: str) -> None:
    """Raise ModelError, beginning with `what`, unless what was made of a model answers `x` as the model does."""
    wanted = answer(model, x, "the model cannot run on the example")
    gap, budget = judged(answer(made, x, f"{what} cannot run"), wanted, model, x)
    if not gap <= budget:
        raise ModelError(
            f"{what} differs from the model: by {gap:.1e} of the largest value on the example, where {budget:.0e} can "
            "be rounding"
        )


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
