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
for _ in range(3):
    step()
before = faults()
for _ in range(5):
    step()
print((faults() - before) / 5)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc is told")
def test_a_tensor_that_follows_another_causes_no_page_faults():
    counted = {}
    for way in ("given back", "kept"):
        done = subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True)
        counted[way] = float(done.stdout)
    assert counted["kept"] < 20
    assert counted["given back"] > 20, "else this process did not need to be told"


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
