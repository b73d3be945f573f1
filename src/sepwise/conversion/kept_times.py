"""Times of layers kept between runs, in one file of the user's cache folder; valid for this machine and versions only.

$SEPWISE_CACHE/times.json, else $XDG_CACHE_HOME/sepwise/times.json, else ~/.cache/sepwise/times.json
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from .. import __version__, records
from ..errors import OutputError
from ..files import whole_file
from ..ops import native
from ..ops.separable_conv2d.cpu import precision_asked
from .times import Time

FORMAT = "sepwise-times/5"  # goes up, too, when a layer becomes faster or `fuse` makes something else of it


def cache_folder() -> Path:
    """Where this user's caches are, by the XDG Base Directory rule; SEPWISE_CACHE goes before it."""
    own, xdg = os.environ.get("SEPWISE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    return (Path(xdg) if xdg and Path(xdg).is_absolute() else Path.home() / ".cache") / "sepwise"


def conditions() -> str:
    """All that the time of a layer depends on besides the layer."""
    machine = records.machine()
    kernels = "compiled kernels" if native.PROBLEM is None else "no compiled kernels"
    threads, precision = torch.get_num_threads(), precision_asked(compiling=False)
    parts = (machine["processor"], f"{machine['cores']} cores", f"torch {torch.__version__}")
    return " | ".join((*parts, f"sepwise {__version__}", kernels, f"{threads} threads", f"precision {precision}"))


class KeptTimes:
    """Times under these conditions, by words that tell the layer and its candidate.

    path    of the file; None: in the user's cache folder. It appears with the first times put, whole each time
    A damaged file is set aside with a warning, never written over. A folder that cannot be written: nothing is kept.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path) if path else cache_folder() / "times.json"
        self.conditions = conditions()
        self._times = self._read().get(self.conditions, {})

    def get(self, words: str) -> Time | None:
        return self._times.get(words)

    def put(self, times: Mapping[str, Time]) -> None:
        """Keep more times, or newer ones, beside those that other processes have put meanwhile."""
        everything = self._read()
        self._times = {**everything.get(self.conditions, {}), **self._times, **times}
        everything[self.conditions] = self._times
        held = {name: {w: [t.ms, t.kernel] for w, t in many.items()} for name, many in everything.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(self.path) as aside:
                aside.write_text(json.dumps({"format": FORMAT, "times": held}, indent=1) + "\n", encoding="utf-8")
        except (OSError, OutputError) as error:
            reason = error.strerror if not isinstance(error, OutputError) else error
            warnings.warn(f"measured times are not kept for the next run: {self.path}: {reason}", stacklevel=2)

    def _read(self) -> dict[str, dict[str, Time]]:
        try:
            return _times_in(json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            with suppress(OSError):
                os.replace(self.path, aside)
            warnings.warn(f"{self.path} holds no times ({error}); set aside as {aside}, measured anew", stacklevel=3)
            return {}


def _times_in(data: Any) -> dict[str, dict[str, Time]]:
    if data.get("format") != FORMAT:
        raise ValueError(f'its "format" must be "{FORMAT}"')
    times = {name: {w: Time(ms, kernel) for w, (ms, kernel) in many.items()} for name, many in data["times"].items()}
    for time in (t for many in times.values() for t in many.values()):
        if not (isinstance(time.ms, int | float) and 0 < time.ms < float("inf")) or not isinstance(time.kernel, str):
            raise ValueError(f"{time} is no time")
    return times
