"""Colours and layout of the pictures: zero is neutral, signs mirror, every tile is where it belongs."""

import numpy as np
import pytest

from sepwise.errors import PictureError, ShapeError
from sepwise.report.pictures import (
    DIFFERENCE_SCALE,
    GAP,
    GAP_COLOUR,
    TILE,
    difference_picture,
    kernel_grid,
    map_picture,
)


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


def test_one_outlier_does_not_bleach_the_others():
    kernels = np.random.default_rng(3).normal(size=(8, 8, 3, 3))
    kernels[0, 0, 0, 0] = 1e4
    grid = pixels(kernel_grid(kernels))
    inside = (grid != GAP_COLOUR).any(-1)
    assert (grid[inside].min(-1) < 200).mean() > 0.3


def test_zero_weights_are_white_and_gaps_are_not():
    grid = pixels(kernel_grid(np.zeros((2, 2, 3, 3))))
    colours = {tuple(c) for c in grid.reshape(-1, 3)}
    assert colours == {(255, 255, 255), GAP_COLOUR}


def test_opposite_kernels_mirror_red_and_blue():
    kernels = np.random.default_rng(0).normal(size=(3, 4, 5, 5))
    grid, opposite = pixels(kernel_grid(kernels)), pixels(kernel_grid(-kernels))
    inside = (grid != GAP_COLOUR).any(-1)
    assert (grid[inside] == opposite[inside][:, ::-1]).all()
    assert (grid[inside] != opposite[inside]).any()


def test_positive_is_red_and_negative_blue():
    grid = pixels(kernel_grid(np.array([[[[1.0, -1.0]]]])))
    red, blue = grid[GAP, GAP], grid[GAP, GAP + TILE // 2]
    assert red[0] > red[2] + 100
    assert blue[2] > blue[0] + 100


def test_colours_do_not_depend_on_the_scale_of_the_weights():
    kernels = np.random.default_rng(1).normal(size=(2, 2, 3, 3))
    assert (pixels(kernel_grid(kernels)) == pixels(kernel_grid(1000 * kernels))).all()


def test_cells_are_squares_without_smoothing():
    kernel = np.random.default_rng(2).normal(size=(1, 1, 3, 3))
    grid = pixels(kernel_grid(kernel))[GAP:-GAP, GAP:-GAP]
    blocks = grid.reshape(3, TILE // 3, 3, TILE // 3, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


@pytest.mark.parametrize(
    ("shape", "tiles"),
    [
        ((64, 3, 3, 3), 63),
        ((64, 64, 3, 3), 64),
        ((64, 1, 3, 3), 64),
        ((1, 64, 3, 3), 64),
        ((2, 3, 5, 5), 6),
        ((7, 5, 1, 3), 35),
    ],
)
def test_the_grid_shows_as_many_kernels_as_fit_the_limit(shape, tiles):
    image = kernel_grid(np.ones(shape))
    grid = pixels(image)
    shown = (grid != GAP_COLOUR).any(-1).sum()
    cell = TILE // max(shape[2:])
    assert shown == tiles * shape[2] * shape[3] * cell**2
    assert max(image.size) <= 4 * min(image.size)


def test_the_limit_is_kept():
    shown = (pixels(kernel_grid(np.ones((9, 9, 3, 3)), limit=10)) != GAP_COLOUR).any(-1).sum() / TILE**2
    assert 1 < shown <= 10


def test_kernels_of_one_output_stand_side_by_side():
    kernels = np.zeros((2, 2, 1, 1))
    kernels[0, 1] = 1
    grid = pixels(kernel_grid(kernels))
    middle = GAP + TILE // 2
    assert grid[middle, middle].tolist() == [255] * 3
    assert grid[middle, middle + TILE + GAP].tolist() != [255] * 3


@pytest.mark.parametrize("array", [np.ones((3, 3)), np.ones((0, 1, 3, 3)), np.full((1, 1, 1, 1), np.nan)])
def test_what_is_no_kernel_is_refused(array):
    with pytest.raises(ShapeError, match=r"kernel_grid: got an array .*expected finite weights \(out, in"):
        kernel_grid(array)


def test_a_limit_below_one_is_refused():
    with pytest.raises(ShapeError, match="limit=0, expected at least 1"):
        kernel_grid(np.ones((1, 1, 3, 3)), limit=0)


def test_a_map_is_grey_from_black_to_white():
    image = map_picture(np.array([[0.0, 0.5, 1.0]]))
    assert (image.mode, image.size) == ("L", (3, 1))
    assert np.asarray(image).tolist() == [[0, 128, 255]]


def test_a_difference_is_black_at_zero_mirrors_and_saturates():
    s = DIFFERENCE_SCALE
    row = pixels(difference_picture(np.array([[0.0, s / 2, -s / 2, s, 1.0, -1.0]])))[0]
    assert row[0].tolist() == [0, 0, 0]
    assert row[1].tolist() == row[2][::-1].tolist() != [0, 0, 0]
    assert row[3].tolist() == row[4].tolist() == row[5][::-1].tolist()
    assert row[1].tolist() != row[3].tolist()


@pytest.mark.parametrize(
    ("draw", "array", "sentence"),
    [
        (map_picture, np.array([[0.0, 1.5]]), "map_picture: got values from 0 to 1.5, expected 0 to 1"),
        (map_picture, np.array([[-0.1]]), "expected 0 to 1"),
        (map_picture, np.array([[np.nan]]), "got values from nan to nan"),
        (map_picture, np.zeros((1, 2, 2)), r"got an array \(1, 2, 2\), expected \(height, width\)"),
        (difference_picture, np.array([[-1.5]]), "difference_picture: got values from -1.5 to -1.5, expected -1 to 1"),
    ],
)
def test_maps_outside_their_range_are_refused(draw, array, sentence):
    with pytest.raises(PictureError, match=sentence):
        draw(array)
