"""Memory kept is memory that is not asked for again: counted in page faults, in processes of their own."""

import subprocess
import sys

import pytest

from sepwise.ops.freed_memory import keep_freed_memory

FAULTS = """
import resource, sys, torch
if sys.argv[1] == "kept":
    from sepwise.ops import keep_freed_memory
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    return torch.zeros(12_000_000)  # 48 MB
for _ in range(12):  # the heap takes its shape
    step()
before = faults()
for _ in range(20):
    step()
print((faults() - before) / 20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc is told")
def test_a_tensor_that_follows_another_causes_no_page_faults():
    counted = {}
    for way in ("given back", "kept"):
        done = subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True)
        counted[way] = float(done.stdout)
    assert counted["kept"] < 0.1 * counted["given back"]


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
