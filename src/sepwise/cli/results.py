"""The folder that a command writes its results to: what may be replaced there, and what must not be."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OutputError
from ..files import check_folder

RECORDS = "records.jsonl"  # every result holds it, so that a folder of ours is known


def check_results(out: Path, overwrite: bool, *read: str | None) -> None:
    """Refuse, before any work is done, a folder that cannot be written or whose loss somebody would mourn.

    read    what the command reads: files, folders, names of other things, None
    Raises OutputError when it lies in the folder, or when the folder is filled by anything but a result of ours.
    """
    check_folder(out, overwrite)
    for given in read:
        if given and os.path.exists(given) and Path(given).resolve().is_relative_to(out.resolve()):
            raise OutputError(f"{given} lies in the folder {out}, which would be replaced; name another --out")
    if out.is_dir() and any(out.iterdir()) and not (out / RECORDS).is_file():
        raise OutputError(
            f"{out} holds files, but no earlier result of sepwise ({RECORDS}), so it is not replaced; "
            "name another folder"
        )
