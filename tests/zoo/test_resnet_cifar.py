"""The CIFAR residual networks: sizes of the paper, names of the trained weights, the parameter-free shortcut."""

from io import BytesIO

import pytest
import torch
from torch import nn

from sepwise import zoo
from sepwise.errors import ShapeError
from sepwise.zoo.resnet_cifar import Block


@pytest.mark.parametrize(
    ("name", "millions"),
    [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet56", 0.85), ("resnet110", 1.73)],
)
def test_parameters_of_the_paper(name, millions):
    assert round(sum(p.numel() for p in zoo.NETWORKS[name]().parameters()) / 1e6, 2) == millions


def test_multiplications_of_resnet56():
    # Counted from the shapes that really pass through; shares no code with sepwise.measure.
    macs = []

    def count(module, inputs, output):
        positions = output.numel() // output.shape[1]
        macs.append(module.weight[0].numel() * output.shape[1] * positions)

    model = zoo.resnet56().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert len(macs) == 56
    assert sum(macs) == 125_485_696  # 125.49 M


def test_shortcut_subsamples_and_pads_both_sides():
    x = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4)
    y = Block(2, 4).shortcut(x)
    assert y.shape == (1, 4, 2, 2)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert y[:, 0].count_nonzero() == y[:, 3].count_nonzero() == 0


@pytest.mark.parametrize("depth", [2, 18, 21])
def test_other_depths_are_refused(depth):
    with pytest.raises(ShapeError, match=rf"depth={depth} must be 6n \+ 2"):
        zoo.CifarResNet(depth)


def test_trained_weights_fit_and_classify(shared):
    from PIL import Image
    from pyarrow.parquet import read_table
    from safetensors.torch import load_file

    model = zoo.resnet20().eval()
    model.load_state_dict(load_file(shared / "weights" / "resnet20-cifar10.safetensors"))
    rows = read_table(shared / "data" / "cifar10" / "test.parquet").slice(0, 256).to_pylist()
    pictures = [list(Image.open(BytesIO(row["img"]["bytes"])).convert("RGB").tobytes()) for row in rows]
    x = torch.tensor(pictures).reshape(-1, 32, 32, 3).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(model.picture[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        right = model((x - mean) / std).argmax(1) == torch.tensor([row["label"] for row in rows])
    assert right.float().mean() > 0.75  # 0.81 over all 10,000 of these re-encoded pictures; 0.1 by chance
