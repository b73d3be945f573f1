"""Real inputs: what the first trained convolution of HED makes of a picture of scikit-image.

`python -m bench.activations PICTURE HEIGHT WIDTH FILE` writes them as float32 (1, HEIGHT, WIDTH, 64); a program of its
own, so that whoever times things need not load PyTorch.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.workload import Workload
from sepwise.errors import SepwiseError

CHANNELS = 64


def load(workload: Workload) -> np.ndarray | None:
    """The input of a workload (N, H, W, C) that names a picture; None for normal random numbers.

    Raises SepwiseError when the picture or the trained network is missing.
    """
    if workload.data == "normal":
        return None
    network, _, picture = workload.data.partition(":")
    if network != "hed" or (workload.batch, workload.channels) != (1, CHANNELS):
        raise SepwiseError(
            f"{workload.name}: data {workload.data!r} at batch {workload.batch}, {workload.channels} channels; "
            f'expected "normal", or "hed:PICTURE" at batch 1 and {CHANNELS} channels'
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.npy"
        command = [sys.executable, "-m", "bench.activations", picture]
        done = subprocess.run(
            [*command, str(workload.height), str(workload.width), str(file)], capture_output=True, text=True
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"it ended by signal {-done.returncode}"]
            raise SepwiseError(f"no activations of {workload.data}: {lines[-1]}")
        return np.load(file)


def _write(picture: str, height: int, width: int, file: str) -> None:
    import skimage
    import torch
    from PIL import Image

    from sepwise.zoo.hed import hed

    data = Path(skimage.__file__).parent / "data"
    carried = {p.stem: p for p in sorted(data.iterdir()) if p.suffix in (".jpg", ".png")}
    if picture not in carried:
        raise SepwiseError(f"scikit-image carries no picture {picture!r}; it has {', '.join(carried)}")
    model = hed("bsds500")
    image = Image.open(carried[picture]).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(model.picture[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    block = model.blocks[0]
    assert isinstance(block, torch.nn.Sequential)
    with torch.inference_mode():
        maps = block[1](block[0]((pixels - mean) / std))
    np.save(file, maps.permute(0, 2, 3, 1).contiguous().numpy())


if __name__ == "__main__":
    _write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
