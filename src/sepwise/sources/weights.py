"""Weights from files and into files. Only tensors are ever read: a file that would run code is refused."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..extras import require
from ..files import whole_file

PICKLED = (".pth", ".pt", ".bin", ".ckpt")
READABLE = (".safetensors", *PICKLED)
WRAPPERS = ("state_dict", "model_state_dict", "model")


def load_weights(model: nn.Module, path: str | os.PathLike[str], *, allow_nonfinite: bool = False) -> None:
    """Fill a model with the weights of a file; every name and every shape must fit. On failure it is unchanged.

    path    .safetensors, or .pth .pt .bin .ckpt of plain tensors; a dict inside {"state_dict": ...} is found, and
            the prefix "module." (left by DataParallel) is dropped when every name has it and no name of the model
    Raises WeightsError when the file is unsafe, unreadable, does not fit, or holds NaN or Inf.
    """
    own = model.state_dict()
    state = _without_prefix(read_weights(path), own)
    missing = [n for n in own if n not in state and not _may_be_missing(n, own, state)]
    unexpected = [n for n in state if n not in own]
    misfit = [
        f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}"
        for n in own
        if n in state and state[n].shape != own[n].shape
    ]
    problems = [
        f"    {len(names)} {kind}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misfit))
        if names
    ]
    if problems:
        raise WeightsError("\n".join([f"{path} does not fit the model {type(model).__name__}", *problems]))
    broken = [n for n, t in state.items() if t.is_floating_point() and not bool(t.isfinite().all())]
    if broken and not allow_nonfinite:
        raise WeightsError(
            f"{path} holds NaN or Inf in {', '.join(broken[:4])} ({len(broken)} of {len(state)} tensors)"
        )
    model.load_state_dict(state, strict=False)  # what may be missing was decided above


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The named tensors of a file, on the CPU.

    Raises WeightsError when the file is missing, unsafe, unreadable or holds something else than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
    if path.suffix == ".safetensors":
        safetensors = require("safetensors.torch", "reading .safetensors")
        error_class = require("safetensors", "reading .safetensors").SafetensorError
        try:
            return safetensors.load_file(path)
        except (error_class, OSError) as error:
            raise WeightsError(f"{path} cannot be read as safetensors: {error}") from None
    if path.suffix not in PICKLED:
        raise WeightsError(f"{path}: weights are read from {' '.join(READABLE)}")
    return _named_tensors(path, unpickle_tensors(path, str(path)))


def unpickle_tensors(file: Any, name: str) -> Any:
    """What `torch.save` wrote, if it holds nothing but tensors and plain containers: no code runs.

    file    a path or an open file
    Raises WeightsError when loading it would execute code, or when it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what it cannot read it refuses anyway
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if re.search("Unsupported (global|class)", str(error)):
            raise WeightsError(
                f"{name} is refused: loading it would execute code; save its tensors only, as .safetensors or with "
                "torch.save(model.state_dict(), ...)"
            ) from None
        raise WeightsError(f"{name} is refused: it is damaged, or loading it would execute code") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        if "TorchScript" in str(error):
            raise WeightsError(f"{name} is refused: it is a TorchScript program, not weights") from None
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise WeightsError(f"{name} cannot be read: {reason}") from None


def save_weights(weights: nn.Module | Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Write weights as .safetensors, whole or not at all. Tensors that share memory are written once for each name."""
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    safetensors = require("safetensors.torch", "writing .safetensors")
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        address = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    with whole_file(path) as aside:
        mode = aside.stat().st_mode  # as the user's umask has it; the library would leave a file for its owner alone
        safetensors.save_file(plain, aside)
        aside.chmod(mode)


def _named_tensors(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, dict):
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), dict)]
        content = inner[0] if len(inner) == 1 else content
        strangers = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
        if content and not strangers:
            return {str(name): tensor for name, tensor in content.items()}
        raise WeightsError(
            f"{path} holds {', '.join(strangers[:4]) or 'nothing'}; expected named tensors, plain or under one of "
            f"{', '.join(WRAPPERS)}"
        )
    raise WeightsError(f"{path} holds a {type(content).__name__}; expected named tensors")


def _without_prefix(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = "module."
    if all(n.startswith(prefix) for n in state) and not any(n.startswith(prefix) for n in own):
        return {n.removeprefix(prefix): t for n, t in state.items()}
    return state


def _may_be_missing(name: str, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    """A counter of training steps, which old files lack, or a name tied to another that the file has."""
    if name.endswith("num_batches_tracked"):
        return True
    place = (own[name].data_ptr(), own[name].shape)
    return own[name].numel() > 0 and any((own[n].data_ptr(), own[n].shape) == place for n in state if n in own)
