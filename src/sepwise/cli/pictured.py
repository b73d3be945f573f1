"""Pictures of a conversion: what both networks make of the held-out ones, and the kernels before and after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import records, report
from ..conversion import Plan
from ..conversion.agreed import answer_of
from ..extras import require
from ..measure import Agreement
from ..nn import FactoredConv
from ..sources.models import LoadedModel
from .request import Job

PICTURED, TOP = 4, 3  # pictures, and classes of each


@torch.no_grad()
def pictures_of(
    job: Job, dense: nn.Module, separable: nn.Module, kind: str | None, folder: Path
) -> Iterator[records.Record]:
    """The first held-out pictures with what both networks make of them."""
    (folder / "pictures").mkdir()
    for number, (name, x) in enumerate(job.shown[:PICTURED]):
        before, after = answer_of(dense(x))[0], answer_of(separable(x))[0]
        value: dict[str, Any] = {"name": name, "input": f"pictures/{number}-input.png"}
        image_of(x[0], job.loaded).save(folder / value["input"])
        if kind == "maps" and before.dim() == 3:
            maps = {
                "dense": report.pictures.map_picture(before[0].numpy()),
                "separable": report.pictures.map_picture(after[0].clamp(0, 1).numpy()),
                "difference": report.pictures.difference_picture((after - before)[0].numpy()),
            }
            for which, picture in maps.items():
                value[which] = f"pictures/{number}-{which}.png"
                picture.save(folder / value[which])
            alone = Agreement("maps").update(after[None], before[None])
            value |= {"f1": alone.f1, "mean_absolute_difference": alone.mean_absolute_difference}
        elif kind == "classes":
            for which, scores in (("dense_top", before), ("separable_top", after)):
                value[which] = [[f"class {i}", share] for i, share in top(scores, TOP)]
        yield records.here("picture", value)


def image_of(x: Tensor, loaded: LoadedModel) -> Any:
    """A prepared picture as the network sees it, as a picture file can hold it."""
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (loaded.mean, loaded.std))
    plain = ((x * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return require("PIL.Image", "writing pictures").fromarray(plain.squeeze())


def top(scores: Tensor, count: int) -> list[tuple[int, float]]:
    """The classes with the largest shares of a picture, and these shares."""
    best = scores.softmax(0).topk(min(count, len(scores)))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def kernels_of(dense: nn.Module, separable: nn.Module, plan: Plan, folder: Path) -> Iterator[records.Record]:
    """Kernels of converted layers, dense and as the separable chain composes them."""
    (folder / "kernels").mkdir()
    for number, name in enumerate(plan.converted):
        try:
            before, after = dense.get_submodule(name).weight, separable.get_submodule(name)
        except AttributeError:
            continue
        if not isinstance(after, FactoredConv) or not isinstance(before, Tensor) or before.dim() != 4:
            continue
        value = {"layer": name}
        for which, weight in (("before", before), ("after", after.dense_weight())):
            value[which] = f"kernels/{number}-{which}.png"
            report.pictures.kernel_grid(weight.detach().float().numpy()).save(folder / value[which])
        yield records.here("kernels", value)
