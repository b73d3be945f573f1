"""Pictures: every kind of file becomes the same kind of tensor, by the stated rules; broken ones are named."""

from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from sepwise.errors import PictureError
from sepwise.sources import Pictures, batches, find_pictures, prepare

PLAIN: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def encoded(image, kind="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Ten pictures, each of one grey level; the level is ten times the number in the name."""
    place = tmp_path / "pictures"
    place.mkdir()
    for i in range(10):
        Image.new("RGB", (8, 8), (10 * i,) * 3).save(place / f"{i}.png")
    return place


def levels(found):
    return [round(float(x[0, 0, 0]) * 255 / 10) for batch in found for x in batch]


def test_all_in_order_and_batched(folder):
    (folder / "notes.txt").write_text("no picture")
    found = batches(folder, None, (8, 8), **PLAIN, batch_size=4)
    assert levels(found) == list(range(10))
    assert [tuple(t.shape) for t in found] == [(4, 3, 8, 8), (4, 3, 8, 8), (2, 3, 8, 8)]
    assert [n[-5:] for n in found.names] == [f"{i}.png" for i in range(10)]


def test_choice_depends_on_the_seed_alone(folder):
    chosen = [levels(batches(folder, 4, (8, 8), **PLAIN, batch_size=4, seed=seed)) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(set(chosen[0])) == 4


def test_held_out_pictures_are_others(folder):
    pictures = find_pictures(folder)
    fit, held = pictures.split(held_out=3)
    assert (len(fit), len(held)) == (7, 3)
    assert {p.name for p in fit} | {p.name for p in held} == {p.name for p in pictures}
    with pytest.raises(PictureError, match="10 pictures held out of 10"):
        pictures.split(held_out=10)


def test_broken_file_is_named_or_skipped(folder):
    (folder / "3.png").write_bytes(b"no picture")
    whole = (folder / "4.png").read_bytes()
    (folder / "4.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        PictureError, match=r"3\.png cannot be read: it is no picture; remove it, or pass --skip-broken"
    ):
        batches(folder, None, (8, 8), **PLAIN, batch_size=4)
    found = batches(folder, 8, (8, 8), **PLAIN, batch_size=4, broken="skip")
    assert sorted(levels(found)) == [0, 1, 2, 5, 6, 7, 8, 9]
    found = batches(folder, None, (8, 8), **PLAIN, batch_size=4, broken="skip")
    assert len(found.skipped) == 2
    assert "4.png cannot be read" in found.skipped[1]


def test_nothing_but_broken(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(PictureError, match="none of the 1 pictures can be read"):
        batches(tmp_path, None, (8, 8), **PLAIN, batch_size=1, broken="skip")


def table(path, column, rows, **more):
    parquet.write_table(pa.table({column: pa.array(rows), **more}), path)
    return path


@pytest.mark.parametrize("column", ["img", "image"])
def test_parquet(tmp_path, column):
    rows = [{"bytes": encoded(Image.new("L", (4, 4), 10 * i)), "path": f"{i}.png"} for i in range(3)]
    table(tmp_path / "a.parquet", column, rows, label=[5, 6, 7])
    table(tmp_path / "b.parquet", column, rows)
    found = batches(tmp_path / "a.parquet", None, (4, 4), **PLAIN, batch_size=8)
    assert (levels(found), found.labels) == ([0, 1, 2], [5, 6, 7])
    both = batches(tmp_path, None, (4, 4), **PLAIN, batch_size=8)
    assert (levels(both), both.labels) == ([0, 1, 2, 0, 1, 2], [5, 6, 7, None, None, None])


def test_parquet_row_without_bytes_is_broken(tmp_path):
    path = table(tmp_path / "a.parquet", "img", [{"bytes": None, "path": "x.png"}, {"bytes": b"x", "path": "y.png"}])
    with pytest.raises(PictureError, match=r"a\.parquet, row 0 cannot be read: the row holds no bytes"):
        batches(path, None, (4, 4), **PLAIN, batch_size=8)


def test_places_without_pictures(tmp_path):
    with pytest.raises(PictureError, match=r"there is no .*absent"):
        find_pictures(tmp_path / "absent")
    with pytest.raises(PictureError, match="holds no picture"):
        find_pictures(tmp_path)
    with pytest.raises(PictureError, match="has the columns text; expected one named img or image"):
        find_pictures(table(tmp_path / "a.parquet", "text", ["x"]))
    with pytest.raises(PictureError, match=r"the column img holds string; expected \{bytes, path\}"):
        find_pictures(table(tmp_path / "b.parquet", "img", ["x"]))
    (tmp_path / "c.parquet").write_bytes(b"no table")
    with pytest.raises(PictureError, match="is not a parquet table"):
        find_pictures(tmp_path / "c.parquet")


@pytest.mark.parametrize(
    ("image", "level"),
    [
        (Image.new("L", (4, 4), 51), 51),
        (Image.new("RGB", (4, 4), (51, 51, 51)), 51),
        (Image.new("RGB", (4, 4), (51, 51, 51)).convert("P"), 51),
        (Image.new("RGBA", (4, 4), (51, 51, 51, 0)), 255),  # nothing but the white below is seen
        (Image.new("LA", (4, 4), (51, 255)), 51),
        (Image.new("1", (4, 4), 1), 255),
        (Image.fromarray(np.full((4, 4), 51 * 257, np.uint16)), 51),
        (Image.new("CMYK", (4, 4), (0, 0, 0, 204)), 51),
    ],
    ids=lambda v: getattr(v, "mode", str(v)),
)
def test_kinds_of_pixels(image, level):
    kind = "JPEG" if image.mode == "CMYK" else "PNG"
    picture = Image.open(BytesIO(encoded(image, kind)))
    for channels in (1, 3):
        x = prepare(picture, (4, 4), (0.0,) * channels, (1.0,) * channels, channels)
        assert x.shape == (channels, 4, 4)
        torch.testing.assert_close(x * 255, torch.full_like(x, level), atol=1.0, rtol=0)


def test_32_bits_have_no_white():
    with pytest.raises(PictureError, match="mode F has no known white"):
        prepare(Image.new("F", (4, 4)), (4, 4), **PLAIN)


def test_normalisation():
    x = prepare(Image.new("RGB", (4, 4), (0, 51, 255)), (4, 4), (0.5, 0.2, 0.0), (0.5, 1.0, 2.0))
    torch.testing.assert_close(x[:, 0, 0], torch.tensor([-1.0, 0.0, 0.5]))


def test_size_is_covered_and_the_middle_cut_out():
    # left of the middle black, the middle grey, right of it white
    wide = np.zeros((10, 31), np.uint8)
    wide[:, 15], wide[:, 16:] = 128, 255
    x = prepare(Image.fromarray(wide), (10, 11), (0.0,), (1.0,), 1)
    assert (x[0] * 255).round()[0].tolist() == [0.0] * 5 + [128.0] + [255.0] * 5
    for shape in ((7, 50), (50, 7), (3, 3)):
        assert prepare(Image.new("L", shape), (10, 11), **PLAIN).shape == (3, 10, 11)


def test_crop_keeps_a_part_of_each_side():
    framed = np.full((32, 32), 255, np.uint8)
    framed[8:24, 8:24] = 0
    assert prepare(Image.fromarray(framed), (16, 16), (0.0,), (1.0,), 1, crop=0.5).count_nonzero() == 0
    assert prepare(Image.fromarray(framed), (16, 16), (0.0,), (1.0,), 1).count_nonzero() > 0


def test_shrinking_does_not_alias():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    for interpolation, flat in (("bicubic", True), ("nearest", False)):
        x = prepare(Image.fromarray(stripes), (16, 16), (0.0,), (1.0,), 1, interpolation)[0, 4:-4, 4:-4]
        assert bool(((x - 0.5).abs() < 0.05).all()) is flat


def test_camera_rotation_is_applied(tmp_path):
    image = Image.new("L", (6, 3))
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert find_pictures(tmp_path)[0].decode().size == (3, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.5,)}, r"mean \(0.5,\), std .* expected 3 numbers each"),
        ({"crop": 0.0}, "crop=0.0"),
        ({"interpolation": "cubic"}, "interpolation='cubic'.* one of nearest"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(PictureError, match=message):
        prepare(Image.new("L", (4, 4)), (4, 4), **(PLAIN | options))


def test_limits():
    with pytest.raises(PictureError, match="limit=0, batch_size=2: both must be at least 1"):
        batches(Pictures([]), 0, (4, 4), **PLAIN, batch_size=2)


def test_class_names_are_those_of_the_table(tmp_path):
    row = {"bytes": encoded(Image.new("RGB", (4, 4))), "path": None}
    table = pa.table({"img": [row] * 4, "label": [0, 1, 1, 0]})
    told = b'{"info": {"features": {"label": {"names": ["n01440764_great_tench", "cock"]}}}}'
    for name, metadata in (("a", {"huggingface": told}), ("b", {"huggingface": b"[1"}), ("c", None)):
        parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / f"{name}.parquet")
    found = find_pictures(tmp_path / "a.parquet")
    assert found.class_names == found.shuffled().class_names == found.split(1)[1].class_names == ("great tench", "cock")
    assert find_pictures(tmp_path / "b.parquet").class_names == find_pictures(tmp_path / "c.parquet").class_names == ()
    assert find_pictures(tmp_path).class_names == ("great tench", "cock")
