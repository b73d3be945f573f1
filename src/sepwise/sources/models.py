"""Models by name (`timm:NAME`, `zoo:NAME`, `package.module:factory`, `file.pt2`) and how they want their pictures."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ModelError, SepwiseError
from ..extras import require
from ..zoo import NETWORKS
from . import torchvision_workaround
from .weights import READABLE, load_weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = "timm:NAME, zoo:NAME, package.module:factory or file.pt2"


@dataclass(frozen=True)
class LoadedModel:
    """A model and how its pictures are prepared.

    model            in eval mode, float32, on the CPU
    name             as the user wrote it
    size             (H, W) of its pictures, pixels
    mean, std        one number for each channel, for values in 0..1
    interpolation    "bicubic", "bilinear", "lanczos" or "nearest"
    crop             the part of a resized picture that is kept, in (0, 1]
    """

    model: nn.Module
    name: str
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int = 3
    interpolation: str = "bicubic"
    crop: float = 1.0


def load_model(
    spec: str, weights: str | os.PathLike[str] | None = None, *, allow_nonfinite: bool = False
) -> LoadedModel:
    """Build a model, and fill it with the weights of a file. Without `weights` it starts from seed 0.

    spec       timm:NAME                 a network of timm, untrained
               zoo:NAME                  a network of `sepwise.zoo`
               package.module:factory    called without arguments; the current directory can be imported from
               file.pt2                  a program of torch.export, checked before it is loaded
    weights    see `load_weights`; a zoo network may know checkpoints of its own (zoo:hed reads Keras files and knows
               "bsds500")

    Size, mean and deviation come from timm's configuration, from the attribute `picture` of the network
    ({"size": (H, W), "mean": ..., "std": ...}), or are 224 x 224 and ImageNet's; for a program the size is that of its
    example, and channels other than three are taken as they are: mean 0, deviation 1.
    Raises ModelError for a model that cannot be found or built, or is not in float32, WeightsError for weights that do
    not fit it.

    >>> loaded = load_model("zoo:resnet20")
    >>> loaded.size, loaded.model.training
    ((32, 32), False)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loaded, weights = _build(spec, weights)
    others = {str(p.dtype) for p in loaded.model.parameters() if p.is_floating_point() and p.dtype != torch.float32}
    if others:
        raise ModelError(
            f"{spec} has weights in {' and '.join(sorted(others))}; expected torch.float32: give the model before it "
            "was rounded, or model.float(). `sepwise fuse --dtype bfloat16` rounds each weight once"
        )
    if weights is not None:
        load_weights(loaded.model, weights, allow_nonfinite=allow_nonfinite)
    return loaded


def _build(spec: str, weights: Any) -> tuple[LoadedModel, Any]:
    """The model, and the weights that are still to be loaded into it."""
    kind, _, name = spec.partition(":")
    if spec.endswith(".pt2"):
        return _from_program(spec), weights
    if not name or not kind:
        raise ModelError(f"{spec!r} names no model: expected {KINDS}")
    if kind == "timm":
        return _from_timm(spec, name), weights
    if kind == "zoo":
        factory = _choose("zoo", name, NETWORKS)
        reads = "weights" in inspect.signature(factory).parameters
        if weights is not None and reads and Path(weights).suffix not in READABLE:
            return _described(factory(weights), spec), None
        return _described(factory(), spec), weights
    return _described(_from_factory(spec, kind, name), spec), weights


def _from_timm(spec: str, name: str) -> LoadedModel:
    torchvision_workaround.prepare()
    timm = require("timm", f"the model {spec}")
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    try:
        model = timm.create_model(name, pretrained=False)
    except Exception as error:  # any of a thousand constructors
        raise ModelError(f"{spec} cannot be built: {_one_line(error)}") from None
    config = timm.data.resolve_model_data_config(model)
    channels, height, width = config["input_size"]
    return LoadedModel(
        model.eval(),
        spec,
        (height, width),
        tuple(config["mean"]),
        tuple(config["std"]),
        channels,
        config["interpolation"],
        config["crop_pct"],
    )


def _from_program(path: str) -> LoadedModel:
    from .exported import input_shape, load_program, trains  # torch.export takes a second to import

    program = load_program(path)
    if trains(program):
        raise ModelError(f"{path} was exported in training mode; call model.eval() before torch.export.export")
    channels, height, width = input_shape(program)
    model = program.module(check_guards=False)
    for name in ("train", "eval"):  # replaced by refusals on this object; the ordinary methods do no harm here
        model.__dict__.pop(name, None)
    three = channels == 3
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if three else ((0.0,) * channels, (1.0,) * channels)
    return LoadedModel(model.eval(), path, (height, width), mean, std, channels)


def _from_factory(spec: str, module_name: str, name: str) -> nn.Module:
    with _current_directory_importable():
        try:
            module = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
                raise ModelError(
                    f"{spec}: there is no module {error.name} here ({Path.cwd()}) or among the installed packages"
                ) from None
            raise ModelError(f"{spec}: {module_name} cannot be imported: {_one_line(error)}") from None
        except (Exception, SystemExit) as error:  # whatever the user's file does
            raise ModelError(f"{spec}: {module_name} cannot be imported: {_one_line(error)}") from None
        factory = getattr(module, name, None)
        if factory is None:
            listed = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
            raise _unknown(f"the module {module_name}", name, listed)
        if not callable(factory):
            raise ModelError(f"{spec} is a {type(factory).__name__}; expected a function that returns the model")
        try:
            model = factory()
        except (Exception, SystemExit) as error:
            if isinstance(error, SepwiseError):
                raise
            raise ModelError(f"{spec}: {name}() failed: {_one_line(error)}") from None
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec}: {name}() returned a {type(model).__name__}; expected a torch.nn.Module")
    return model


def _described(model: nn.Module, spec: str) -> LoadedModel:
    picture = getattr(model, "picture", {})
    mean, std = tuple(picture.get("mean", IMAGENET_MEAN)), tuple(picture.get("std", IMAGENET_STD))
    return LoadedModel(model.eval(), spec, tuple(picture.get("size", (224, 224))), mean, std, channels=len(mean))


def _choose(where: str, name: str, known: Mapping[str, Callable[..., nn.Module]]) -> Callable[..., nn.Module]:
    if name not in known:
        raise _unknown(where, name, list(known))
    return known[name]


def _unknown(where: str, name: str, known: list[str]) -> ModelError:
    near = get_close_matches(name, known, n=3)
    listed = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(known[:8]) or 'none'}"
    return ModelError(f"{where} has no {name!r}: {listed}{', ...' if not near and len(known) > 8 else ''}")


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
