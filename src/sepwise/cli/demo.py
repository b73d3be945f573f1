"""`sepwise demo`: the edge detector HED made separable, on photographs that Python packages carry."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .outcome import Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from ..sources.models import LoadedModel

HELP = "convert HED, a trained edge detector, and write a report with pictures (about three minutes on two cores)"

SKIMAGE_FIT = (
    "motorcycle_left.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
    "camera.png",
    "coins.png",
    "brick.png",
    "gravel.png",
    "moon.png",
    "page.png",
)
SKLEARN_FIT = ("china.jpg", "flower.jpg")
SHOWN = ("astronaut.png", "chelsea.png", "coffee.png")
CROP, CROPS, BATCH = 224, 48, 8
FORMS = ("spatial", "depthwise")  # the pair that matters here: CP and Tucker cost minutes to fit on 512 channels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", default="demo-report", help="folder to write, replaced (demo-report)")
    parser.add_argument("--budget", metavar="macs=FRACTION", default="macs=0.125", help="default: macs=0.125")


def run(args: argparse.Namespace) -> Outcome:
    from ..sources.models import load_model
    from .convert import read_budget
    from .job import run as run_job
    from .request import Job

    loaded = load_model("zoo:hed", "bsds500")
    return run_job(
        Job(
            loaded=loaded,
            fit=fit_crops(loaded),
            fitted_on=f"{CROPS} crops of {CROP}×{CROP} from {len(SKIMAGE_FIT) + len(SKLEARN_FIT)} pictures of "
            "scikit-image and scikit-learn",
            shown=shown_pictures(loaded),
            shown_on=", ".join(Path(name).stem for name in SHOWN) + " of scikit-image",
            out=Path(args.out),
            overwrite=True,
            title="HED, an edge detector, made separable",
            budget=read_budget([args.budget]),
            forms=FORMS,
            beside=FORMS[1:],
            iterations=3,  # 8 gain 0.002 of F1 and take half a minute more
        )
    )


def fit_crops(loaded: LoadedModel) -> list[Tensor]:
    """Random crops, half of them mirrored, the same at every run; none of a picture that is shown."""
    import torch

    from ..sources.batches import prepare
    from ..sources.pictures import Picture

    skimage, sklearn = _folders()
    random = torch.Generator().manual_seed(0)
    whole = []
    for path in [skimage / name for name in SKIMAGE_FIT] + [sklearn / name for name in SKLEARN_FIT]:
        image = Picture(str(path), path.read_bytes).decode()
        scale = max(1.0, 1.2 * CROP / min(image.size))
        size = (round(image.height * scale), round(image.width * scale))
        whole.append(prepare(image, size, loaded.mean, loaded.std))
    crops = []
    for number in range(CROPS):
        picture = whole[number % len(whole)]
        top, left = (int(torch.randint(n - CROP + 1, (), generator=random)) for n in picture.shape[1:])
        crop = picture[:, top : top + CROP, left : left + CROP]
        crops.append(crop.flip(2) if number % 2 else crop)
    order = torch.randperm(CROPS, generator=random)
    return list(torch.stack(crops)[order].split(BATCH))


def shown_pictures(loaded: LoadedModel) -> list[tuple[str, Tensor]]:
    """Whole photographs at the size of the model; the network is not fitted on any of them."""
    from ..sources.batches import prepare
    from ..sources.pictures import Picture

    skimage, _ = _folders()
    pictures = [Picture(str(skimage / name), (skimage / name).read_bytes) for name in SHOWN]
    tensors = [prepare(p.decode(), loaded.size, loaded.mean, loaded.std) for p in pictures]
    return [(Path(name).stem, tensor[None]) for name, tensor in zip(SHOWN, tensors, strict=True)]


def _folders() -> tuple[Path, Path]:
    """Where scikit-image and scikit-learn keep their pictures."""
    from ..extras import require

    skimage = require("skimage", "the pictures of the demo")
    sklearn = require("sklearn", "the pictures of the demo")
    return Path(str(skimage.__file__)).parent / "data", Path(str(sklearn.__file__)).parent / "datasets" / "images"
