"""A survey's finished layers in a folder, so that one that was stopped goes on; read without executing pickles."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..errors import WeightsError
from ..files import whole_file
from .candidates import Candidate, LayerSurvey
from .fit import Fitted

FORMAT = "sepwise-survey/1"


class KeptSurvey:
    """The layers of one survey, a file each: of one network, on one set of pictures, with one set of forms.

    folder    made with the first layer that is put
    """

    def __init__(
        self, folder: Path, model: nn.Module, batches: Sequence[Tensor], forms: Sequence[str], batch_norm: str
    ) -> None:
        self.folder = folder
        about = hashlib.sha256(repr((FORMAT, __version__, torch.__version__, list(forms), batch_norm)).encode())
        for name, value in model.state_dict().items():
            about.update(name.encode())
            _add(about, value)
        for batch in batches:
            _add(about, batch)
        self.about = about.hexdigest()

    def get(self, dense: LayerSurvey) -> LayerSurvey | None:
        """The layer with its candidates, where it is kept; `dense` is the layer without them.

        Raises WeightsError for a file that belongs to another survey, or is none.
        """
        path = self._path(dense.name)
        if not path.exists():
            return None
        try:
            held = torch.load(path, weights_only=True)
            same = held["about"] == self.about
            found = tuple(
                Candidate(**(c | {"rank": _rank(c["rank"]), "fitted": _fitted(c["fitted"])}))
                for c in held["candidates"]
            )
        except Exception as error:
            raise WeightsError(
                f"{path} is no layer of a survey of this version ({type(error).__name__}); remove {self.folder}"
            ) from None
        if not same:
            raise WeightsError(
                f"{self.folder} is left from a conversion of other weights or pictures, or with other options; "
                "remove it, or convert without going on from it"
            )
        return LayerSurvey(dense.name, dense.conv, dense.macs, found, dense.size, dense.itemsize)

    def put(self, layer: LayerSurvey) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        candidates = [
            {name: getattr(c, name) for name in ("form", "rank", "macs", "parameters", "energy_kept", "effect")}
            | {"fitted": vars(c.fitted)}
            for c in layer.candidates
        ]
        with whole_file(self._path(layer.name)) as aside:
            torch.save({"about": self.about, "candidates": candidates}, aside)

    def _path(self, name: str) -> Path:
        """A name of its own for each layer, whatever characters it has."""
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.pt"


def _add(about: Any, value: Tensor) -> None:
    about.update(repr((tuple(value.shape), str(value.dtype))).encode())
    about.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())


def _rank(held: int | Sequence[int]) -> int | tuple[int, int]:
    return held if isinstance(held, int) else (held[0], held[1])


def _fitted(held: dict[str, Any]) -> Fitted:
    return Fitted(tuple(held["weights"]), held["bias"], held["error"])
