"""Pictures inside the page: exact where it matters, small where it does not, never from outside the folder."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from sepwise.errors import PictureError
from sepwise.report import embed


def decoded(embedded):
    return Image.open(BytesIO(base64.b64decode(embedded.uri.partition(",")[2])))


@pytest.fixture
def noisy(tmp_path):
    smooth = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    Image.fromarray(smooth).resize((200, 150), Image.Resampling.BICUBIC).save(tmp_path / "noisy.png")
    return tmp_path


def test_a_map_keeps_every_pixel(noisy):
    found = embed.exact(noisy, "noisy.png")
    with Image.open(noisy / "noisy.png") as original:
        assert (np.asarray(decoded(found).convert("RGB")) == np.asarray(original)).all()
    assert (found.width, found.height, found.is_small) == (200, 150, False)


def test_a_photograph_is_smaller_and_close(noisy):
    found = embed.photograph(noisy, "noisy.png")
    assert found.uri.startswith(("data:image/jpeg;base64,", "data:image/webp;base64,"))
    assert len(found.uri) < len(embed.exact(noisy, "noisy.png").uri) / 2
    with Image.open(noisy / "noisy.png") as original:
        difference = np.asarray(decoded(found).convert("RGB"), float) - np.asarray(original, float)
    assert np.abs(difference).mean() < 6


def test_a_very_small_photograph_is_kept_exactly(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "small.png")
    found = embed.photograph(tmp_path, "small.png")
    assert found.is_small
    assert (np.asarray(decoded(found).convert("RGB")) == colours).all()


def test_a_picture_outside_the_folder_is_refused(noisy):
    inside = noisy / "inside"
    inside.mkdir()
    with pytest.raises(PictureError, match=r"'\.\./noisy\.png' lies outside the folder"):
        embed.exact(inside, "../noisy.png")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("none.png", "'none.png', which is not in"), ("broken.png", "cannot be read"), (7, "names the picture 7")],
)
def test_a_picture_that_cannot_be_read_is_named(tmp_path, name, sentence):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(PictureError, match=sentence):
        embed.exact(tmp_path, name)
