"""What a command hands back: the numbers for programs and the text for people."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """The result of one command.

    data         everything found, as plain dicts, lists, numbers and strings: what `--json` prints
    text         the same for a person: what is printed otherwise
    exit_code    0 unless the command succeeded in finding something broken
    """

    data: dict[str, Any]
    text: str
    exit_code: int = 0
