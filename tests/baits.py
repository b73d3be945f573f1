"""Pickles that would run code when loaded: they make a file, so that a test can see it."""

from pathlib import Path


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)
