"""Where a training goes on from: a file that appears whole, read without executing pickles."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..errors import WeightsError
from ..files import whole_file


@dataclass
class State:
    """What a kind of training keeps. about: what it was started with; another start does not go on from it."""

    about: dict[str, Any]


S = TypeVar("S", bound=State)


def write(path: Path, state: State, form: str) -> None:
    """form    name and version of this kind of file"""
    with whole_file(path) as aside:
        torch.save({"format": form} | {f.name: getattr(state, f.name) for f in fields(state)}, aside)


def read(path: Path | None, kind: type[S], form: str, about: dict[str, Any], what: str) -> S | None:
    """The state in a file; None when there is no file.

    what    what was going on, as it reads in the sentence
    Raises WeightsError for a file that holds no state, or that of another start.
    """
    if path is None or not path.exists():
        return None
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        if held.pop("format") != form:
            raise KeyError("format")
        state = kind(**held)
    except Exception as error:
        raise WeightsError(f"{path} is no saved {what} of this version ({type(error).__name__}); remove it") from None
    different = [name for name in about if state.about.get(name) != about[name]]
    if different:
        raise WeightsError(
            f"{path} belongs to another {what} (other {', '.join(different)}); remove it or name another file"
        )
    return state
