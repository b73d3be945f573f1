"""Files appear whole or not at all: written aside, then renamed. Knows paths; knows nothing of what is in them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path to write to; rename it to `path` when the block ends, remove it when the block raises.

    Raises OutputError when the folder cannot be written.
    """
    target = Path(path)
    _require_writable(target.parent)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill; rename it to `path` when the block ends, remove it when the block raises.

    overwrite    True: what stood at `path` is replaced, at the very end; False: a filled `path` is refused first
    Raises OutputError when `path` is taken or its parent cannot be written.
    """
    target = Path(path)
    check_folder(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    old = aside.with_name(aside.name + ".old")
    try:
        yield aside
        os.chmod(aside, 0o777 & ~_umask())
        if target.exists():
            os.replace(target, old)
        os.replace(aside, target)
    except BaseException:
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_folder(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Refuse, before any work is done, a folder that `whole_folder` could not deliver."""
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file; the results need a folder of their own")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise OutputError(f"{target} is not empty; name another folder, or pass --overwrite to replace it")
    standing = next(p for p in [target.absolute().parent, *target.absolute().parents] if p.exists())
    _require_writable(standing)
    if target.is_dir():
        _require_writable(target)


def _require_writable(folder: Path) -> None:
    if not folder.is_dir():
        raise OutputError(f"the folder {folder} does not exist; make it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be written: {error.strerror}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
