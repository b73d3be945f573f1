"""The compiled kernels under threads of PyTorch, threads of Python, and in processes that fork made."""

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import call, fused, inputs
from torch import Tensor

from sepwise.geometry import Geometry
from sepwise.ops import native
from sepwise.ops.program import Layer, Program, Step

pytestmark = pytest.mark.skipif(native.PROBLEM is not None, reason=str(native.PROBLEM))


def a_program() -> tuple[Tensor, Program]:
    """Ten layers."""
    x = torch.randn(1, 8, 20, 21).contiguous(memory_format=torch.channels_last)
    weights = [torch.randn(8, 8, 3, 3) / 9 for _ in range(10)]
    layers = [Layer({"pointwise": weight}, Geometry.of((3, 3), 1, "same")) for weight in weights]
    return x, Program([x], [Step(i, layer=layer) for i, layer in enumerate(layers)], [10])


def test_any_number_of_threads_gives_the_same_bits() -> None:
    tensors = inputs(32, 1, 40, 30)
    expected = call(fused, tensors)
    for threads in (2, 3, 8):
        torch.set_num_threads(threads)
        assert torch.equal(call(fused, tensors), expected)


def test_eight_python_threads_at_once() -> None:
    several = [inputs(3 + 7 * i, 1 + i % 3, 4 + 5 * i, 5 + i) for i in range(8)]
    several += [[t.bfloat16() for t in tensors] for tensors in several]
    expected = [call(fused, tensors, padding=1, between="relu") for tensors in several]

    def work(turn: int) -> bool:
        order = [(turn * 5 + step) % len(several) for step in range(80)]
        return all(torch.equal(call(fused, several[i], padding=1, between="relu"), expected[i]) for i in order)

    torch.set_num_threads(2)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_one_program_in_eight_python_threads_at_once() -> None:
    x, program = a_program()
    (expected,) = program([x])
    for threads in (2, 5):
        torch.set_num_threads(threads)
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda turn: all(torch.equal(program([x])[0], expected) for _ in range(40)), range(8)))


def test_inside_a_parallel_region_of_pytorch() -> None:
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    tensors, (x, program) = inputs(32, 1, 40, 30), a_program()
    expected, (of_program,), found = call(fused, tensors), program([x]), []

    @ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    def job(begin: int, end: int, context: Any) -> None:
        for _ in range(begin, end):
            found.extend((torch.equal(call(fused, tensors), expected), torch.equal(program([x])[0], of_program)))

    torch.set_num_threads(2)
    large = ctypes.c_int64(6), ctypes.c_int64(1)
    assert library.torch_parallel_for(ctypes.c_int64(0), *large, job, None) == 0
    assert found == [True] * 12


FORK = """
import os, signal, sys, threading, torch
from sepwise.ops import native, separable_conv2d
before, after, busy = (int(a) for a in sys.argv[1:])
torch.set_num_threads(before)
inputs = torch.randn(2, 64, 24, 24), torch.randn(64, 1, 3, 3), torch.randn(64, 64, 1, 1)
call = lambda: separable_conv2d(*inputs, padding=1, impl="cpu")
expected = [call() for _ in range(3)][-1]
stop = threading.Event()
def work():  # another thread in the middle of things, with locks in its hands
    while not stop.is_set():
        native.packed_weights(), native.forget_packed_weights(), call()
threads = [threading.Thread(target=work) for _ in range(busy)]
[thread.start() for thread in threads]
codes = []
for _ in range(20 if busy else 1):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        torch.set_num_threads(after)
        same = all(torch.equal(call(), expected) for _ in range(3))
        inputs[2].add_(1)
        os._exit(0 if same and not torch.equal(call(), expected) else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
[thread.join() for thread in threads]
print(*sorted(set(codes)), torch.equal(call(), expected))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    ("before", "after", "busy"), [(1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 3)], ids=["one", "two-one", "one-two", "busy"]
)
def test_a_child_of_fork(before: int, after: int, busy: int) -> None:
    """A child may use the kernels wherever it may use PyTorch: with one thread, or if no call before used several."""
    arguments = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, *map(str, (before, after, busy))]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout.strip()) == (0, "0 True"), done.stdout + done.stderr
