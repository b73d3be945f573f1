"""The AMX kernels on a machine without AMX: their own object files, each tile instruction answered in software."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).parents[2] / "csrc" / "checks" / "run"


def test_case_table_errors_and_what_is_not_finite() -> None:
    done = subprocess.run([sys.executable, CHECKS, "installed"], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    for line in re.findall(r"^\w+_amx.*", done.stdout, re.MULTILINE):
        assert re.search(r" [1-9]\d* runs over \d+ cases, 0 cases refused, 0 runs wrong", line) or "skipped" in line
