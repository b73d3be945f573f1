"""Makes torchvision importable when its compiled half does not fit this torch; does nothing when it fits."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

import torch

# The two operators that torchvision describes to torch while it is imported; normally its compiled half defines them.
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_kept: list[torch.library.Library] = []  # the definitions last as long as this object


def prepare() -> str:
    """Import torchvision, with the missing operators described first when the plain import fails; say what was done.

    A CPU-only torch beside a torchvision compiled for CUDA fails with "operator torchvision::nms does not exist".
    With the two operators described, transforms, datasets and models work; box operators stay unusable.
    """
    if find_spec("torchvision") is None:
        return "not installed"
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return "works without its compiled operators" if _kept else "works"
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    _kept.append(library)
    import_module("torchvision")
    return "works without its compiled operators"
