"""A recipe whose trials take no time, as text that tests change, and trials that nobody ran."""

from pathlib import Path
from types import ModuleType

import numpy as np

from sepwise.lab import Recipe, Result

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


def made_up(errors: dict[str, float], seeds: int, noise: float) -> list[Result]:
    """Trials of arms with exactly these mean errors, and noise that each arm has for itself."""
    random = np.random.default_rng(0)
    found = []
    for arm, error in errors.items():
        drawn = random.normal(size=seeds)
        for seed, off in enumerate(drawn - drawn.mean()):
            value = float(error + noise * off)
            numbers = {"error": value, "error_6000": value, "parameters": 1000, "macs": 10**6, "diverged": False}
            found.append(Result(arm, seed, numbers))
    return found
