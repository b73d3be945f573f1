"""Who uses the processor: whether our processes sleep, what strangers took, how to go before them. Linux: /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sepwise.errors import SepwiseError

PAUSE_SECONDS = 0.030
PATIENCE_SECONDS = 1.0
STEP_SECONDS = 0.004
LONGEST_SECONDS = 0.3  # at real-time priority: of each second Linux keeps a twentieth from such threads
ASLEEP = 0.02  # of a step: bookkeeping, not a spinning thread


def seconds_used(pid: int) -> float:
    """Processor seconds of all threads of a process, exact to the moment; 0 for one that has ended."""
    return _schedule(pid)[0]


def _schedule(pid: int) -> tuple[float, float]:
    """Seconds that the threads of a process ran, and that they were ready and stood in the queue for a processor."""
    ran = queued = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            numbers = (task / "schedstat").read_text().split()
            ran, queued = ran + int(numbers[0]), queued + int(numbers[1])
    except OSError:
        return 0.0, 0.0
    return ran / 1e9, queued / 1e9


class Waiting:
    """Measures, inside the block, which share of the time the threads of this process stood in the queue."""

    share = 0.0

    def __enter__(self) -> Waiting:
        self._start, self._queued = time.perf_counter(), _schedule(os.getpid())[1]
        return self

    def __exit__(self, *error: object) -> None:
        queued = _schedule(os.getpid())[1] - self._queued
        self.share = max(queued, 0.0) / (time.perf_counter() - self._start)


@contextmanager
def realtime() -> Iterator[None]:
    """Inside the block all threads of this process go before those of ordinary programs, and new ones as well.

    Raises SepwiseError when this user may not.
    """
    try:
        _schedule_as(os.SCHED_FIFO, 1)
    except PermissionError:
        raise SepwiseError("real-time priority is not permitted: it takes root, or `ulimit -r` above 0") from None
    try:
        yield
    finally:
        _schedule_as(os.SCHED_OTHER, 0)


def _schedule_as(policy: int, priority: int) -> None:
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # a thread that has ended meanwhile
            os.sched_setscheduler(int(task.name), policy, os.sched_param(priority))


def settle(pids: Iterable[int]) -> None:
    """Sleep PAUSE_SECONDS, and longer until none of the processes runs any more, PATIENCE_SECONDS at most.

    Threads of OpenMP, TBB and ONNX Runtime spin for a while after a call, on the core of whoever is timed next.
    """
    pids = list(pids)
    start = time.perf_counter()
    time.sleep(PAUSE_SECONDS)
    before = sum(map(seconds_used, pids))
    while time.perf_counter() - start < PATIENCE_SECONDS:
        time.sleep(STEP_SECONDS)
        now = sum(map(seconds_used, pids))
        if now - before < ASLEEP * STEP_SECONDS:
            return
        before = now


@dataclass(frozen=True)
class Usage:
    """Processor seconds since the start of the machine."""

    when: float
    busy: float
    stolen: float
    ours: float

    @classmethod
    def now(cls, pids: Iterable[int]) -> Usage:
        fields = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        user, nice, system, _idle, _iowait, irq, softirq, steal = fields
        tick = os.sysconf("SC_CLK_TCK")
        ours = sum(map(seconds_used, [*pids, os.getpid()]))
        return cls(time.perf_counter(), (user + nice + system + irq + softirq) / tick, steal / tick, ours)

    def strangers_since(self, start: Usage) -> float:
        """Share of one core that went to processes not ours, or to other virtual machines."""
        seconds = self.when - start.when
        taken = (self.busy - start.busy) - (self.ours - start.ours) + (self.stolen - start.stolen)
        return max(taken, 0.0) / seconds if seconds else 0.0
