"""Optional packages: imported when there, named with their extra when not."""

import sys
import tomllib
from pathlib import Path

import pytest

from sepwise.errors import MissingExtraError
from sepwise.extras import EXTRA_OF, require


def test_what_is_there_is_imported():
    assert require("json.decoder", "a test").__name__ == "json.decoder"


def test_what_is_missing_is_named_with_its_extra(monkeypatch):
    for name in ("scipy", "scipy.optimize"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError) as refused:
        require("scipy.optimize", "planning under a budget")
    assert str(refused.value) == (
        "scipy is needed for planning under a budget and is not installed: pip install 'sepwise[convert]'"
    )


def test_a_package_that_misses_another_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "broken_package.py").write_text("import what_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_nobody_has"):
        require("broken_package", "a test")


def test_every_extra_named_is_declared():
    declared = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert set(EXTRA_OF.values()) <= set(declared["optional-dependencies"])
