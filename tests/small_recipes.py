"""A recipe whose trials take no time, as text that tests change."""

from pathlib import Path
from types import ModuleType

from sepwise.lab import Recipe

RECIPE = '''"""Is one more than none?"""
from sepwise.lab.recipe import Arm, Finding

SEEDS = {"smoke": 2, "small": 3, "paper": 4}


def arms(scale):
    return [Arm("none", {"n": 0}), Arm("one", {"n": 1})]


def trial(settings, seed, at):
    at.progress(0.5)
    return {"error": 10 * settings["n"] + seed}


def findings(results):
    return [Finding("X1", "holds", f"{len(results)} trials")]
'''


def recipe_from(text: str, path: Path) -> Recipe:
    path.write_text(text)
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    exec(compile(text, str(path), "exec"), module.__dict__)
    return Recipe(path.stem, module)
