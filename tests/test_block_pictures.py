"""The pictures of docs/blocks.md show the blocks as they are now, and the page shows every one of them."""

import re
from pathlib import Path

import pytest
from block_pictures import FOLDER, drawn, picture

from sepwise.nn import blocks

PAGE = FOLDER.parents[1] / "blocks.md"
BLOCKS = drawn()


def stale(name: str, folder: Path) -> str | None:
    """Why a picture in a folder does not show its block; None when it does."""
    path = folder / f"{name}.svg"
    if path.is_file() and path.read_text(encoding="utf-8") == picture(BLOCKS[name]):
        return None
    return f"{path} does not show the block as it is; draw it again: python tests/block_pictures.py, and look at it"


@pytest.mark.parametrize("name", BLOCKS)
def test_pictures_show_the_blocks(name: str) -> None:
    assert stale(name, FOLDER) is None


def test_a_stale_picture_is_found(tmp_path: Path) -> None:
    assert "draw it again" in (stale("hybrid", tmp_path) or "")
    (tmp_path / "hybrid.svg").write_text(picture(BLOCKS["hybrid"]).replace("64 in all", "65 in all"))
    assert "draw it again" in (stale("hybrid", tmp_path) or "")


def test_every_block_has_a_picture() -> None:
    every = {b for b in vars(blocks).values() if isinstance(b, type) and issubclass(b, blocks.Block)}
    assert {type(block) for block in BLOCKS.values()} == every - {blocks.Block}


def test_the_page_shows_all_pictures_and_no_others() -> None:
    shown = re.findall(r"\]\(pictures/blocks/(\w+)\.svg\)", PAGE.read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(BLOCKS) == sorted(path.stem for path in FOLDER.iterdir())
