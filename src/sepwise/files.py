"""Files appear whole or not at all: written aside, then renamed. Knows paths; knows nothing of what is in them."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path to write to; rename it to `path` when the block ends, remove it when the block raises.

    Raises OutputError when `path` is a folder or its folder cannot be written.
    """
    target = Path(path).resolve()
    if target.is_dir():
        raise OutputError(f"{path} is a folder; name a file to write")
    _require_writable(target.parent)
    aside = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        aside.touch(exist_ok=False)
        yield aside
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill; rename it to `path` when the block ends, remove it when the block raises.

    overwrite    True: what stood at `path` is replaced, at the very end; False: a filled `path` is refused first
    Raises OutputError when `path` is taken or its parent cannot be written.
    """
    check_folder(path, overwrite)
    target = Path(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    old = aside.with_name(aside.name + ".old")
    try:
        aside.mkdir()
        yield aside
        if target.exists():
            os.replace(target, old)
        os.replace(aside, target)
    except BaseException:
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise
    finally:
        _remove(aside, old)


def check_folder(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Refuse, before any work is done, a folder that `whole_folder` could not deliver."""
    target = Path(path).resolve()
    if os.path.exists(target) and not os.path.isdir(target):
        raise OutputError(f"{path} is a file; the results need a folder of their own")
    _require_writable(next(p for p in target.parents if os.path.exists(p)))
    if os.path.isdir(target):
        _require_writable(target)
        if any(target.iterdir()) and not overwrite:
            raise OutputError(f"{path} is not empty; name another folder, or pass --overwrite to replace it")


def _require_writable(folder: Path) -> None:
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise OutputError(f"{folder} is a file; nothing can be written below it")
    if not os.path.isdir(folder):
        raise OutputError(f"the folder {folder} does not exist; make it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be written: {error.strerror}") from None


def _remove(*folders: Path) -> None:
    """Remove folders and what is in them, all of it even when Ctrl-C comes meanwhile."""
    try:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        raise
