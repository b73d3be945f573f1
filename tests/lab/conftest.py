"""A data set of ten colours in the layout of CIFAR-10, and recipes made of a text."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image
from small_recipes import RECIPE, recipe_from

from sepwise.lab import Inputs

COUNTS = {"train": 256, "test": 128}


@pytest.fixture(scope="session")
def colours(tmp_path_factory) -> Path:
    """train.parquet and test.parquet: the class is the colour of a picture, under noise."""
    folder, random = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    palette = random.integers(40, 216, (10, 3))
    for name, count in COUNTS.items():
        labels = np.arange(count) % 10
        pixels = palette[labels][:, None, None, :] + random.normal(0, 25, (count, 32, 32, 3))
        cells = [{"bytes": _png(p), "path": None} for p in pixels.clip(0, 255).astype(np.uint8)]
        table = pa.table(
            {"img": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])), "label": labels}
        )
        parquet.write_table(table, folder / f"{name}.parquet")
    return folder


def _png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def inputs(colours) -> Inputs:
    return Inputs(str(colours))


@pytest.fixture
def recipe_of(tmp_path):
    """A recipe made of a text."""
    return lambda text=RECIPE: recipe_from(text, tmp_path / "made_up.py")
