"""The records of a folder by what they say, checked for the keys that a page needs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import records
from ..errors import SepwiseError
from ..records import Record

FILE = "records.jsonl"


class Facts:
    """Records grouped by `what`; unknown ones are kept and never asked for."""

    def __init__(self, found: Iterable[Record]):
        self.by_what: dict[str, list[Record]] = {}
        for record in found:
            self.by_what.setdefault(record.what, []).append(record)

    @classmethod
    def of(cls, folder: Path) -> Facts:
        """The facts in folder/records.jsonl. Raises SepwiseError when there is no such file or no record in it."""
        path = folder / FILE
        facts = cls(records.read(path) if path.is_file() else ())
        if not facts.by_what:
            raise SepwiseError(f"a report needs measured records and {path} holds none: run convert or inspect first")
        return facts

    def any(self, *prefixes: str) -> bool:
        return any(what.startswith(prefixes) for what in self.by_what)

    def all(self, what: str, *needed: str) -> list[Record]:
        """The records of one kind, in order; SepwiseError when the value of one lacks a needed key."""
        for record in self.by_what.get(what, []):
            if needed and not isinstance(record.value, dict):
                raise SepwiseError(
                    f"the record {what!r} holds {record.value!r}, expected a table with {', '.join(needed)}"
                )
            lacking = [key for key in needed if key not in record.value]
            if lacking:
                raise SepwiseError(
                    f"a record {what!r} lacks {', '.join(lacking)}; it holds {', '.join(map(str, record.value))}"
                )
        return self.by_what.get(what, [])

    def last(self, what: str, **about: Any) -> Record | None:
        """The newest record of one kind whose `about` says this; None when there is none."""
        fitting = [r for r in self.all(what) if all(r.about.get(k) == v for k, v in about.items())]
        return fitting[-1] if fitting else None

    def under(self, prefix: str) -> list[Record]:
        """The newest record of each kind `prefix.*`, in the order in which the kinds first appeared."""
        return [group[-1] for what, group in self.by_what.items() if what.startswith(prefix + ".")]

    def machine(self) -> dict[str, Any]:
        """The machine of the newest record that names one."""
        named = [r.machine for group in self.by_what.values() for r in group if r.machine]
        return named[-1] if named else {}
