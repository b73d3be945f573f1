"""Files and folders that appear whole or not at all, whatever happens while they are written."""

import os
import shutil

import pytest

from sepwise import files
from sepwise.errors import OutputError
from sepwise.files import check_folder, whole_file, whole_folder

ENDINGS = [ValueError, KeyboardInterrupt, SystemExit]


@pytest.fixture
def umask():
    """The usual mask, so that permissions can be compared with numbers."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def permissions(path):
    return path.stat().st_mode & 0o777


def write_and_raise(whole, ending):
    with whole as aside:
        (aside / "half" if aside.is_dir() else aside).write_text("half")
        raise ending


@pytest.mark.usefixtures("umask")
def test_a_file_appears_at_the_end(tmp_path):
    target = tmp_path / "plan.json"
    with whole_file(target) as aside:
        assert aside.suffix == ".json"
        assert aside.parent == tmp_path
        aside.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(tmp_path) == ["plan.json"]
    assert permissions(target) == 0o644


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_fails_leaves_the_old_one(tmp_path, ending):
    target = tmp_path / "plan.json"
    target.write_text("old")
    with pytest.raises(ending):
        write_and_raise(whole_file(target), ending)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["plan.json"]


def test_a_file_through_a_link_keeps_the_link(tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    with whole_file(tmp_path / "link.json") as aside:
        aside.write_text("new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("folder", "folder is a folder; name a file to write"),
        ("nowhere/plan.json", "the folder .*nowhere does not exist; make it first"),
        ("file/plan.json", "file is a file; nothing can be written below it"),
    ],
)
def test_files_that_cannot_be_written_are_refused_first(tmp_path, place, sentence):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=sentence), whole_file(tmp_path / place):
        pytest.fail("the block must not be entered")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("umask")
def test_a_folder_appears_at_the_end_with_its_parents(tmp_path):
    target = tmp_path / "a" / "b"
    with whole_folder(target) as aside:
        (aside / "x").write_text("1")
        assert not target.exists()
    assert names(target) == ["x"]
    assert names(target.parent) == ["b"]
    assert permissions(target) == 0o755


def test_an_empty_folder_is_filled(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    with whole_folder(target) as aside:
        (aside / "x").write_text("1")
    assert names(target) == ["x"]
    assert names(tmp_path) == ["out"]


def test_a_filled_folder_is_refused_and_nothing_is_lost(tmp_path):
    (tmp_path / "mine").write_text("1")
    with pytest.raises(OutputError, match="is not empty; name another folder, or pass --overwrite to replace it"):
        check_folder(tmp_path)
    with pytest.raises(OutputError, match="is not empty"), whole_folder(tmp_path):
        pytest.fail("the block must not be entered")
    assert names(tmp_path) == ["mine"]


def test_overwriting_replaces_the_folder_whole(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("1")
    with whole_folder(target, overwrite=True) as aside:
        (aside / "new").write_text("2")
        assert names(target) == ["old"], "the old results must stand until the end"
    assert names(target) == ["new"]
    assert names(tmp_path) == ["out"]


def test_overwriting_through_a_link_keeps_the_link(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    (real / "old").write_text("1")
    link.symlink_to(real)
    with whole_folder(link, overwrite=True) as aside:
        (aside / "new").write_text("2")
    assert link.is_symlink()
    assert names(real) == ["new"]
    assert names(tmp_path) == ["link", "real"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("stands", [True, False])
def test_a_folder_that_fails_leaves_what_was_there(tmp_path, ending, stands):
    target = tmp_path / "out"
    if stands:
        target.mkdir()
        (target / "old").write_text("1")
    with pytest.raises(ending):
        write_and_raise(whole_folder(target, overwrite=True), ending)
    assert names(tmp_path) == (["out"] if stands else [])
    assert not stands or names(target) == ["old"]


def test_a_rename_that_is_interrupted_puts_the_old_folder_back(tmp_path, monkeypatch):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("1")
    replace, calls = os.replace, []

    def interrupted(source, destination):
        calls.append(destination)
        if len(calls) == 2:  # the old folder is aside, the new one not yet in its place
            raise KeyboardInterrupt
        replace(source, destination)

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), whole_folder(target, overwrite=True) as aside:
        (aside / "new").write_text("2")
    assert len(calls) == 3
    assert names(tmp_path) == ["out"]
    assert names(target) == ["old"]


def test_cleaning_up_is_finished_when_it_is_interrupted(tmp_path, monkeypatch):
    remove, calls = shutil.rmtree, []

    def interrupted(folder, **rest):
        calls.append(folder)
        if len(calls) == 1:
            raise KeyboardInterrupt
        remove(folder, **rest)

    monkeypatch.setattr(files.shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_and_raise(whole_folder(tmp_path / "out"), ValueError)
    assert len(calls) == 3
    assert names(tmp_path) == []


def test_folders_that_cannot_be_written_are_refused_first(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file is a file; the results need a folder of their own"):
        check_folder(tmp_path / "file", overwrite=True)
    with pytest.raises(OutputError, match="file is a file; nothing can be written below it"):
        check_folder(tmp_path / "file" / "out")

    def read_only(**where):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", read_only)
    with pytest.raises(OutputError, match="cannot be written: Read-only file system"):
        check_folder(tmp_path / "out")
    assert names(tmp_path) == ["file"]
