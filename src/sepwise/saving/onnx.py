"""A network as ONNX: stock operations for any runtime, checked by running what was written."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, UnsupportedError
from ..extras import require
from ..files import whole_file
from ..graph import export
from ..graph.export import check_answer
from ..graph.network import sentence
from .about import check_name

LARGEST = 2**31 - 2**20  # bytes of weights: a file of protocol buffers ends at 2 GB


def save_onnx(network: nn.Module, example: Tensor, path: str | os.PathLike[str]) -> None:
    """Write a network as ONNX in stock operations, which any runtime computes.

    The file is run before it is kept, at a batch of 1 and of 3, by ONNX Runtime where that is installed, else by the
    reference evaluator of ONNX, and must answer as the network does.

    network    from `sepwise.fuse` or `sepwise.convert`, or any other that `torch.export` can follow
    example    an input (N, C, *size): the size is that of all pictures to come, the batch is free
    path       ends in .onnx; written whole or not at all. Input "x" (batch, C, *size), outputs "y", or "y0", "y1", ...
    Raises MissingExtraError without the extra `onnx`; ModelError for a network that cannot be exported, or would answer
    differently; UnsupportedError for other dtypes than float32 and float16 and for weights above 2 GB; OutputError for
    a place that cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), torch.rand(1, 3, 8, 8)
    >>> with TemporaryDirectory() as folder:
    ...     save_onnx(model, x, f"{folder}/model.onnx")
    ...     require("onnx", "this example").load(f"{folder}/model.onnx").graph.node[0].op_type
    'Conv'
    """
    target = Path(path)
    check_name(target, ".onnx")
    onnx = require("onnx", "writing ONNX")
    require("onnxscript", "writing ONNX")
    if example.dtype not in (torch.float32, torch.float16):
        raise UnsupportedError(
            f"save_onnx: runtimes compute no convolutions in {example.dtype}; call .float() on network and example"
        )
    weights = sum(t.nbytes for t in network.state_dict().values())
    if weights > LARGEST:
        raise UnsupportedError(f"save_onnx: {weights / 2**30:.1f} GB of weights; one ONNX file holds at most 2 GB")
    model = onnx_of(network, example)
    first = example[:1]
    with whole_file(target) as aside:
        onnx.save(model, aside)
        run = _runner(aside)
        for x in (first, torch.cat([first, first.flip(-1), first / 2])):
            check_answer(run, network, x, "the ONNX file")


def onnx_of(network: nn.Module, example: Tensor) -> Any:
    """The model in ONNX's own words, with readable names and no traces of where it was made."""
    program = export(network, example)
    count = len(program.graph_signature.user_outputs)
    names = ["y"] if count == 1 else [f"y{i}" for i in range(count)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks of the exporter on its own libraries; the result is run below
        try:
            made = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["x"], output_names=names)
        except Exception as error:  # each library that takes part has its own
            raise ModelError(f"save_onnx: torch.onnx cannot export the network: {sentence(error)}") from None
    assert made is not None
    model = made.model_proto
    graph = model.graph
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(rf"\b{symbol}\b", "batch", dim.dim_param)
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
    return model


def _runner(path: Path) -> Callable[[Tensor], list[Tensor]]:
    """What runs an ONNX file."""
    if find_spec("onnxruntime"):
        import onnxruntime  # pyright: ignore[reportMissingImports]

        onnxruntime.set_default_logger_severity(3)
        name, make = "ONNX Runtime", partial(onnxruntime.InferenceSession, providers=["CPUExecutionProvider"])
    else:
        from onnx.reference import ReferenceEvaluator

        name, make = "the reference evaluator of ONNX", ReferenceEvaluator
    try:
        session = make(str(path))
    except Exception as error:  # each runtime has its own
        raise _refused(name, error) from None

    def run(x: Tensor) -> list[Tensor]:
        try:
            return [torch.from_numpy(y) for y in session.run(None, {"x": x.numpy()})]
        except Exception as error:
            raise _refused(name, error) from None

    return run


def _refused(runtime: str, error: Exception) -> ModelError:
    return ModelError(f"save_onnx: {runtime} cannot run what was written: {sentence(error)}")
