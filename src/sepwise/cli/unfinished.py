"""What a stopped conversion has done so far, kept beside the folder of its results until that is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from ..conversion import Plan, rebuild
from ..conversion.kept_survey import KeptSurvey
from ..errors import BudgetError, OutputError, SepwiseError
from ..files import whole_file
from ..sources.weights import read_weights, save_weights


class Unfinished:
    """The folder OUT.unfinished: finished layers of the survey, the plan, the fitted network, the state of training.

    options    what the conversion was asked for; where others were asked for, the survey alone is gone on from
    resume     go on from what is there; False: it is removed, and the conversion starts anew
    As a context: the folder is removed at the end and by a refusal, and stays after anything else that stops the work;
    also where the budget alone was refused, for another budget needs no new survey.
    Raises OutputError when the folder is none of ours.
    """

    def __init__(self, out: Path, options: dict[str, Any], resume: bool) -> None:
        self.folder = folder_of(out)
        marker = self.folder / "options.json"
        if self.folder.exists() and not marker.is_file():
            raise OutputError(f"{self.folder} is in the way and no unfinished conversion; remove or rename it")
        wanted = json.dumps(options, default=str, sort_keys=True)
        if not resume:
            self._remove()
        elif marker.is_file() and marker.read_text(encoding="utf-8") != wanted:
            for path in (self.folder / "plan.json", self.folder / "model.safetensors", self.checkpoint):
                path.unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(marker) as aside:
            aside.write_text(wanted, encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        begun = {path.name for path in self.folder.iterdir()} - {"options.json"}
        refused = isinstance(error, SepwiseError) and not isinstance(error, BudgetError)
        if kind is None or refused or not begun:
            self._remove()

    @property
    def checkpoint(self) -> Path:
        """Where training keeps its state."""
        return self.folder / "recovery.pt"

    def survey(self, model: nn.Module, batches: Sequence[Tensor], forms: Sequence[str], batch_norm: str) -> KeptSurvey:
        return KeptSurvey(self.folder / "survey", model, batches, forms, batch_norm)

    def converted(self, dense: nn.Module) -> tuple[Plan, nn.Module] | None:
        """The plan and the fitted network, where the conversion had come so far."""
        if not (self.folder / "model.safetensors").is_file():
            return None
        plan = Plan.load(self.folder / "plan.json")
        return plan, rebuild(dense, plan, read_weights(self.folder / "model.safetensors"))

    def keep(self, plan: Plan, separable: nn.Module) -> None:
        plan.save(self.folder / "plan.json")
        save_weights(separable, self.folder / "model.safetensors")

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def folder_of(out: Path) -> Path:
    """Where a conversion to the folder `out` keeps what it has done."""
    target = out.resolve()
    return target.with_name(f"{target.name}.unfinished")
