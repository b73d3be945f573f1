"""The public op and `sepwise.fuse` as users call them: output allocation, checks and dispatch included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import sepwise
from bench.candidates import Candidate, Job, NetworkJob
from bench.candidates.pytorch import candidate, picture, pictures, set_threads, tensor
from bench.prepared import loaded
from sepwise.ops.separable_conv2d import api


def builders(job: Job) -> dict[str, Callable[[], Candidate]]:
    set_threads(job.threads)
    x = picture(job)
    return {
        f"{implementation}, {accuracy}": lambda i=implementation, a=accuracy: _public_op(job, x, i, a)
        for accuracy in job.classes
        for implementation in job.implementations
    }


def network_builders(job: NetworkJob) -> dict[str, Callable[[], Candidate]]:
    set_threads(job.threads)
    model, x = loaded(job.network, job.folder), pictures(job)
    return {f"fuse, {accuracy}": lambda a=accuracy: _fused(model, x, a) for accuracy in job.classes}


def _fused(model: nn.Module, x: Tensor, accuracy: str) -> Candidate:
    """`fuse` times its choices on the example, so it works under the switch of its class already."""

    def settle() -> None:
        torch.set_float32_matmul_precision("highest" if accuracy == "bf16" else accuracy)

    settle()
    fused = sepwise.fuse(model, x.float(), dtype=x.dtype)
    counts = {name: len(getattr(fused.report, name)) for name in ("fused", "alone", "slower", "left")}
    chose = ", ".join(f"{count} {name}" for name, count in counts.items())
    return replace(candidate(fused, x, chose=chose), settle=settle)


def _public_op(job: Job, x: Tensor, implementation: str, accuracy: str) -> Candidate:
    w, t = job.workload, job.tensors
    depthwise, pointwise = tensor(t.depthwise[:, None], job.dtype), tensor(t.pointwise[:, :, None, None], job.dtype)
    depthwise_bias, bias = tensor(t.depthwise_bias, job.dtype), tensor(t.bias, job.dtype)
    precision = None if job.dtype == "bfloat16" else accuracy

    def call(x: Tensor) -> Tensor:
        return sepwise.separable_conv2d(
            x,
            depthwise,
            pointwise,
            bias,
            depthwise_bias=depthwise_bias,
            between=w.between,
            activation=w.activation,
            stride=w.stride,
            padding=w.padding,
            precision=precision,
            impl=implementation,
        )

    with _watched() as taken, torch.inference_mode():
        call(x)
    return candidate(call, x, chose="+".join(taken))


@contextmanager
def _watched() -> Iterator[list[str]]:
    """The names of the implementations that calls inside the block take, in order."""
    taken: list[str] = []

    def watch(name: str, prepare: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def watched(call: Any) -> Any:
            taken.append(name)
            return prepare(call)

        return watched

    with ExitStack() as stack:
        stack.enter_context(patch.dict(api._ROUTES, clear=True))  # each kind of call is asked anew, then forgotten
        for name, module in api.IMPLEMENTATIONS.items():
            stack.enter_context(patch.object(module, "prepare", watch(name, module.prepare)))
        yield taken
