"""The frame around every command: exit codes, sentences, JSON, Ctrl-C."""

import errno
import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from sepwise import cli
from sepwise.cli.outcome import Outcome
from sepwise.errors import WeightsError


@pytest.fixture
def run_as_command(monkeypatch, capsys):
    """Run `sepwise fake ARGS` with the given function as the command; give (exit code, stdout, stderr)."""

    def call(function, *arguments):
        module: Any = ModuleType("sepwise.cli.fake")
        module.HELP, module.run = "does what the test says", function
        module.add_arguments = lambda parser: parser.add_argument("--rank", type=int)
        monkeypatch.setitem(sys.modules, "sepwise.cli.fake", module)
        monkeypatch.setattr(cli, "COMMANDS", ("fake",))
        code = cli.main(["fake", *arguments])
        return (code, *capsys.readouterr())

    return call


def raising(error):
    """A stand-in for any function, that raises."""

    def run(*arguments):
        raise error

    return run


def test_text_or_json_of_the_same_outcome(run_as_command):
    outcome = Outcome({"macs": 9, "energy": float("nan"), "ranks": (1, float("inf"))}, "nine multiplications")
    assert run_as_command(lambda args: outcome) == (0, "nine multiplications\n", "")
    code, out, err = run_as_command(lambda args: outcome, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"macs": 9, "energy": None, "ranks": [1, None]}


def test_exit_code_of_an_outcome(run_as_command):
    assert run_as_command(lambda args: Outcome({}, "broken", 3))[0] == 3


def test_refusal_is_its_sentence_and_exit_code_1(run_as_command):
    refuse = raising(WeightsError("net.pth would run code"))
    assert run_as_command(refuse) == (1, "", "net.pth would run code\n")
    code, out, err = run_as_command(refuse, "--json")
    assert (code, err) == (1, "net.pth would run code\n")
    assert json.loads(out) == {"error": {"type": "WeightsError", "message": "net.pth would run code"}}


def test_unexpected_error_is_one_line_and_debug_shows_it(run_as_command):
    fail = raising(TypeError("no len()\nof this"))
    code, out, err = run_as_command(fail)
    assert (code, out) == (70, "")
    assert err == "sepwise failed unexpectedly: TypeError: no len(); --debug shows the traceback\n"
    with pytest.raises(TypeError, match="no len"):
        run_as_command(fail, "--debug")
    with pytest.raises(WeightsError):
        run_as_command(raising(WeightsError("x")), "--debug")


def test_interrupted(run_as_command):
    assert run_as_command(raising(KeyboardInterrupt())) == (130, "", "interrupted; nothing half-written is left\n")


def test_interrupted_inside_an_import(monkeypatch, capsys):
    monkeypatch.setattr(cli, "import_module", raising(KeyboardInterrupt()))
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "interrupted; nothing half-written is left\n"


@pytest.mark.parametrize("arguments", [["--rank", "two"], ["--colour"]])
def test_bad_arguments_exit_with_2(run_as_command, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        run_as_command(lambda args: Outcome({}, ""), *arguments)
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_unknown_command_exits_with_2(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["separate"])
    assert stop.value.code == 2
    assert "separate" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error():
    program = "import sys; from sepwise import cli; from sepwise.cli.outcome import Outcome\n"
    program += "cli._parser = lambda argv: type('P', (), {'parse_args': lambda self, argv: Args})()\n"
    program += "class Args: json = debug = False; run = lambda args: Outcome({}, 'word ' * 100_000)\n"
    program += "sys.exit(cli.main([]))"
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$0" -c "$1" | head -c 1', sys.executable, program],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (141, "w", "")


def test_help_lists_every_command_without_torch():
    program = "import sys; from sepwise.cli import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout
    assert done.stdout.splitlines()[-1] == "False", "a command module imports torch outside of run"


def test_a_full_disk_is_told_in_a_sentence(run_as_command):
    full = OSError(errno.ENOSPC, "No space left on device", "out/model.pt2")
    code, out, err = run_as_command(raising(full))
    assert (code, out) == (1, "")
    assert err == "the system refused: No space left on device (out/model.pt2)\n"
