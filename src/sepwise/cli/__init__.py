"""The command line: each command a few lines over the library. Prints and exits; computes nothing itself.

A command is a module of this folder with `HELP`, `add_arguments(parser)` and `run(args) -> Outcome`. It imports the
rooms it needs inside `run`, so that help and usage errors never wait for torch.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from .. import __doc__ as purpose
from .. import __version__
from ..errors import SepwiseError
from .outcome import Outcome

COMMANDS = ("explain", "inspect", "convert", "fuse", "bench", "lab", "demo", "doctor")

FAILED, UNEXPECTED, INTERRUPTED, BROKEN_PIPE = 1, 70, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 1 refused with a sentence, 70 our fault, 130 Ctrl-C.

    argv    arguments without the program's name; None: those of the process
    Raises SystemExit(2) for arguments that cannot be read, as argparse does.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        args = _parser(argv).parse_args(argv)
        return _run(args)
    except KeyboardInterrupt:
        print("interrupted; nothing half-written is left", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the exit must not try to flush again
        return BROKEN_PIPE


def _run(args: argparse.Namespace) -> int:
    try:
        outcome: Outcome = args.run(args)
        printed = _json(outcome.data) if args.json else outcome.text
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except SepwiseError as error:
        if args.debug:
            raise
        return _fail(args, error, str(error), FAILED)
    except OSError as error:  # a full disk, a vanished folder: not ours, and not the user's mistake either
        if args.debug:
            raise
        where = f" ({error.filename})" if error.filename else ""
        return _fail(args, error, f"the system refused: {error.strerror or error}{where}", FAILED)
    except Exception as error:
        if args.debug:
            raise
        cause = f"{type(error).__name__}: {error}".rstrip(": ")
        first_line = cause.partition("\n")[0]
        return _fail(args, error, f"sepwise failed unexpectedly: {first_line}; --debug shows the traceback", UNEXPECTED)
    print(printed, flush=True)
    return outcome.exit_code


def _fail(args: argparse.Namespace, error: Exception, message: str, code: int) -> int:
    if args.json:
        print(_json({"error": {"type": type(error).__name__, "message": message}}), flush=True)
    print(message, file=sys.stderr)
    return code


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of every command, or only of the one that `argv` starts with: the others are not imported then."""
    parser = argparse.ArgumentParser(prog="sepwise", description=purpose)
    parser.add_argument("--version", action="version", version=f"sepwise {__version__}")
    choices = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in [c for c in COMMANDS if c in argv[:1]] or COMMANDS:
        command = import_module(f".{name}", __name__)
        sub = choices.add_parser(name, help=command.HELP, description=command.HELP)
        command.add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="print the numbers as JSON")
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=command.run)
    return parser


def _json(data: dict[str, Any]) -> str:
    return json.dumps(_finite(data), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    """`value` with null for NaN and Inf, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
