"""Resident memory of one way to run a network, in a process that does nothing else. Linux: /proc."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.candidates import Candidate

CALLS = 5


def measure(build: Callable[[], Candidate]) -> tuple[Candidate, dict[str, Any]]:
    """Build a candidate, call it once, then CALLS times, and tell what was resident, in MiB.

    returns    the candidate; "runtime": before, with the runtime imported; "loading": most while it was built and
               called once, which is when some compile; "loaded": after that; "calls": most during the other calls
    """
    before = resident("VmRSS")
    start_again()
    candidate = build()
    candidate.settle()
    candidate.run()
    loading, loaded = resident("VmHWM"), resident("VmRSS")
    start_again()
    for _ in range(CALLS):
        candidate.run()
    return candidate, {"runtime": before, "loading": loading, "loaded": loaded, "calls": resident("VmHWM")}


def resident(what: str) -> float:
    """VmRSS: MiB resident now; VmHWM: the most since the start, or since `start_again`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(what))) / 1024


def start_again() -> None:
    """From here on VmHWM counts anew."""
    Path("/proc/self/clear_refs").write_text("5")
