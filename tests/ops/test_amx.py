"""The AMX kernels on a machine without AMX: their own object files, each tile instruction answered in software."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sepwise.ops import native

CHECKS = Path(__file__).parents[2] / "csrc" / "checks" / "run"


def test_case_table_errors_and_what_is_not_finite() -> None:
    done = subprocess.run([sys.executable, CHECKS, "installed"], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    told = dict(re.findall(r"^(\w+) +(\d+ runs over \d+ cases, .*|skipped: .*)$", done.stdout, re.MULTILINE))
    kernels = [kernel.name for kernel in native.kernels() if kernel.isa == "amx"]
    assert kernels
    for name in kernels:
        assert re.fullmatch(r"[1-9]\d* runs over \d+ cases, 0 runs wrong|skipped: .*", told[name]), told[name]
