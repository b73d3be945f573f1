"""Text that can rot is executed: examples run, named paths exist, commands and public names are explained."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sepwise
from sepwise import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMING_PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]

FENCE = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
IN_BACKTICKS = re.compile(r"`([\w./-]+)`")
FILE_SUFFIXES = (".py", ".md", ".toml", ".txt", ".jsonl", ".csv")


def failures(text: str, name: str) -> str:
    """What goes wrong when all examples of a page run one after the other; empty when nothing does."""
    report: list[str] = []
    examples = "\n".join(block for block in FENCE.findall(text) if ">>>" in block)
    test = doctest.DocTestParser().get_doctest(examples, {}, name, name, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(test, out=report.append)
    return "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_run(page):
    assert failures(page.read_text(encoding="utf-8"), page.name) == ""


def test_a_wrong_example_is_found():
    assert "Expected" in failures("```python\n>>> 1 + 1\n3\n```\n", "planted")


def absent_paths(text: str) -> list[str]:
    """Names in backticks that look like a path and are none: from the root, from `src`, from the package, or made by
    a command. A bare file name may stand anywhere in the tree; what is deliberately absent may be."""
    text = re.sub(r"^## Deliberately absent$.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    made = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    files = {path.name for top in ("src", "tests") for path in (ROOT / top).rglob("*")}
    named = {n for n in IN_BACKTICKS.findall(text) if n.endswith((*FILE_SUFFIXES, "/")) and not n.startswith("/")}
    found = {name.strip("./") for name in made | files}
    bases = (ROOT, ROOT / "src", ROOT / "src" / "sepwise")
    return sorted(n for n in named if n.strip("./") not in found and not any((base / n).exists() for base in bases))


@pytest.mark.parametrize("page", NAMING_PAGES, ids=lambda p: p.name)
def test_named_paths_exist(page):
    assert absent_paths(page.read_text(encoding="utf-8")) == []


def test_a_planted_absent_path_is_found():
    text = "`src/absent.py`, `absent.py`, `absent/`, `pyproject.toml`, `factor/`, `api.py`, `torch.nn`"
    assert absent_paths(text) == ["absent.py", "absent/", "src/absent.py"]
    assert absent_paths(f"## Deliberately absent\n{text}\n## Rooms\n`gone.md`") == ["gone.md"]


def commands() -> list[str]:
    return [name for name in cli.COMMANDS if (ROOT / "src" / "sepwise" / "cli" / f"{name}.py").exists()]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_explained(command):
    done = subprocess.run([sys.executable, "-m", "sepwise.cli", command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--json" in done.stdout
    texts = [page.read_text(encoding="utf-8") for page in [*PAGES, ROOT / "CONTRIBUTING.md"]]
    assert any(f"sepwise {command}" in text or f"./run {command}" in text for text in texts)


def test_changelog_begins_with_this_version():
    versions = re.findall(r"^## \[?([\d.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == sepwise.__version__
    assert f'version = "{sepwise.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_public_names_are_explained():
    """Every public name exists, has a docstring, and its page is the README or one of docs/."""
    texts = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    silent = [name for name in sepwise.__all__ if not (getattr(sepwise, name).__doc__ or "").strip()]
    assert silent == []
    assert [name for name in sepwise.__all__ if not re.search(rf"\b{name}\b", texts)] == []
