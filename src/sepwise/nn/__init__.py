"""Layers with learned weights, named and used as `torch.nn.Conv2d`. Knows ops and factors; knows nothing of models.

Every layer stands for one dense convolution, which it can print (`dense_weight()`) and be made from (`from_conv`).
"""

from __future__ import annotations

from typing import Any

from ..errors import UnsupportedError
from ..factor import Rank, form_named
from ..geometry import ConvShape
from . import blocks
from .factored import FactoredConv
from .fused import FusedBlock
from .layers import (
    BlueprintConv1d,
    BlueprintConv2d,
    BlueprintConv3d,
    CPConv1d,
    CPConv2d,
    CPConv3d,
    SpatialConv2d,
    SpatialConv3d,
    SpatialReversedConv2d,
    SpatialReversedConv3d,
    TuckerConv1d,
    TuckerConv2d,
    TuckerConv3d,
)
from .separable import SeparableConv1d, SeparableConv2d, SeparableConv3d

__all__ = [
    "BlueprintConv1d",
    "BlueprintConv2d",
    "BlueprintConv3d",
    "CPConv1d",
    "CPConv2d",
    "CPConv3d",
    "FactoredConv",
    "FusedBlock",
    "SeparableConv1d",
    "SeparableConv2d",
    "SeparableConv3d",
    "SpatialConv2d",
    "SpatialConv3d",
    "SpatialReversedConv2d",
    "SpatialReversedConv3d",
    "TuckerConv1d",
    "TuckerConv2d",
    "TuckerConv3d",
    "blocks",
    "layer_for",
]

LAYERS: tuple[type[FactoredConv], ...] = (
    *(SeparableConv1d, SeparableConv2d, SeparableConv3d),
    *(BlueprintConv1d, BlueprintConv2d, BlueprintConv3d),
    *(SpatialConv2d, SpatialConv3d),
    *(SpatialReversedConv2d, SpatialReversedConv3d),
    *(CPConv1d, CPConv2d, CPConv3d),
    *(TuckerConv1d, TuckerConv2d, TuckerConv3d),
)


def layer_for(
    form: str,
    conv: ConvShape,
    rank: Rank | None = None,
    *,
    bias: bool = True,
    padding_mode: str = "zeros",
    device: Any = None,
    dtype: Any = None,
) -> FactoredConv:
    """A new layer of this form that stands for `conv`, its weights drawn at random.

    form    "depthwise", "blueprint", "spatial", "spatial_reversed", "cp" or "tucker"
    rank    as in `factorize`; None: the full rank
    Raises UnsupportedError when the form does not exist, or not for `conv`.

    >>> from sepwise.geometry import Geometry
    >>> layer_for("spatial", ConvShape(8, 16, Geometry.of((3, 3), padding=1)), rank=4)
    SpatialConv2d(8, 16, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), rank=4)
    """
    reason = form_named(form).why_not(conv)
    if reason:
        raise UnsupportedError(f"layer_for: {form}: {reason}")
    layer = next(c for c in LAYERS if c.form == form and c.ndim == conv.geometry.axes)
    return layer.from_shape(conv, rank, bias=bias, padding_mode=padding_mode, device=device, dtype=dtype)
