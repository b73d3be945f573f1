"""Progress bars on stderr, one for each stage of a long command."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from ..extras import require

STAGES = {
    "synthesize": "making pictures out of noise",
    "metric": "asking which outputs matter",
    "survey": "trying forms and ranks, layer by layer",
    "time": "timing forms and ranks, layer by layer",
    "fit": "fitting the chosen layers",
    "recover": "training, without labels",
    "measure": "measuring",
    "curve": "other budgets",
    "compare": "other ways",
    "bench": "timing networks",
    "answer": "answering pictures with both networks",
}
WIDTH = max(map(len, STAGES.values()))
BAR = "{desc} {percentage:3.0f}%|{bar:30}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"


class Progress:
    """Called as progress(stage, done, total); a new stage closes the bar of the last."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def __enter__(self) -> Self:
        self._tqdm = require("tqdm", "progress bars").tqdm
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, stage: str, done: float, total: int) -> None:
        if stage != self._stage:
            if self._bar is not None:
                self._bar.close()
            self._bar = self._tqdm(
                total=total, desc=STAGES.get(stage, stage).ljust(WIDTH), file=sys.stderr, bar_format=BAR
            )
            self._stage = stage
        self._bar.update(done - self._bar.n)
