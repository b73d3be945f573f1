"""What decides a trial is followed through files, and nothing else counts."""

from pathlib import Path

import pytest

from sepwise.lab import named
from sepwise.lab.meaning import led_to

FILES = {
    "own.py": '''"""A recipe."""
from . import tools
from .help import first, unused as other
from .judge import decide
from .ledger import HOLDS

LENGTH = 3


def trial(x):
    """Does it."""
    return first(x) + tools.twice(LENGTH)


def findings(results):
    return decide(results), other, HOLDS
''',
    "help.py": """from .deep import low

SIZE = 1


def first(x):
    return low(x)


def unused():
    return SIZE
""",
    "deep.py": "def low(x):\n    return x\n\n\ndef high(x):\n    return -x\n",
    "tools.py": "EXTRA = 1\n\n\ndef twice(x):\n    return 2 * x\n",
    "judge.py": "def decide(results):\n    return 'holds'\n",
    "ledger.py": "HOLDS = 'holds'\n",
}


def meanings(folder: Path, **changed: tuple[str, str]) -> list[str]:
    for name, text in FILES.items():
        old, new = changed.get(name.removesuffix(".py"), ("", ""))
        assert old in text
        (folder / name).write_text(text.replace(old, new) if old else text)
    return list(led_to(folder / "own.py", {"trial"}).values())


def test_files_are_followed_to_the_end(tmp_path):
    meanings(tmp_path)
    assert {p.name for p in led_to(tmp_path / "own.py", {"trial"})} == {"own.py", "help.py", "deep.py", "tools.py"}


@pytest.mark.parametrize(
    "change",
    [
        {"own": ("LENGTH = 3", "LENGTH = 4")},
        {"help": ("return low(x)", "return low(x) + 1")},
        {"deep": ("    return x\n", "    return x + 1\n")},
        {"tools": ("EXTRA = 1", "EXTRA = 2")},  # imported whole
        {"tools": ("2 * x", "3 * x")},
    ],
    ids=str,
)
def test_what_a_trial_leads_to_counts(tmp_path, change):
    assert meanings(tmp_path, **change) != meanings(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"own": ("Does it.", "Does the work.")},
        {"own": ("return decide(results), other, HOLDS", "return None")},
        {"help": ("SIZE = 1", "SIZE = 2")},
        {"deep": ("return -x", "return 0")},
        {"judge": ("'holds'", "'fails'")},
        {"ledger": ("'holds'", "'yes'")},
        {"help": ("\n\nSIZE", "\n# how large\n\nSIZE")},
    ],
    ids=str,
)
def test_the_rest_does_not(tmp_path, change):
    assert meanings(tmp_path, **change) == meanings(tmp_path)


def test_the_loop_of_training_counts_for_recipes_that_train():
    assert "def train(" in named("darknet").source
    assert "def cifar10(" in named("darknet").source
    assert "def train(" not in named("arithmetic").source
