"""The public op as users call it: output allocation, checks and dispatch included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import sepwise
from bench.candidates import Candidate, Job
from bench.candidates.pytorch import candidate, picture, set_threads, tensor
from sepwise.ops.separable_conv2d import api


def builders(job: Job) -> dict[str, Callable[[], Candidate]]:
    set_threads(job.threads)
    x = picture(job)
    return {
        f"{implementation}, {accuracy}": lambda i=implementation, a=accuracy: _public_op(job, x, i, a)
        for accuracy in job.classes
        for implementation in job.implementations
    }


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
