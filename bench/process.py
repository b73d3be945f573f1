"""The other end of `bench.worker`: starts a runtime's process, asks it, and says in a sentence how it died."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sepwise.errors import SepwiseError

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 180.0

# The same for all. Memory freed is kept: otherwise every call whose output exceeds malloc's mmap threshold pays for
# fresh pages (32x64x128x32 float32 in eager PyTorch: 14-16 ms instead of 5.4). Threads may spin while they work, that
# is their best chance; `bench.quiet` sees to it that they sleep before another process is timed.
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}


class WorkerError(SepwiseError):
    """A runtime's process died, or did not answer in time."""


class Worker:
    """One runtime in its own process, with its number of threads.

    seconds        it may take for an answer
    environment    what is the same for all
    """

    def __init__(
        self, runtime: str, threads: int, seconds: float = SECONDS, environment: Mapping[str, str] = ENVIRONMENT
    ) -> None:
        self.runtime, self.threads, self.seconds = runtime, threads, seconds
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", runtime],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **environment, **counts, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C reaches the parent only, which ends its workers
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """One request, one answer. Raises WorkerError when the process dies or stays silent; it is ended then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._last_words(do)) from None
        ready, _, _ = select.select([self._process.stdout], [], [], self.seconds)
        if not ready:
            self.close()
            raise WorkerError(f"{self.runtime} gave no answer to {do!r} in {self.seconds:.0f} seconds")
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._last_words(do))
        return json.loads(line)

    def close(self) -> None:
        """End the process at once; it holds nothing worth keeping."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._log.close()

    def _last_words(self, do: str) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return f"{self.runtime} ended {how} during {do!r}" + (f": {lines[-1]}" if lines else "")
