"""The tree of errors: every one can be caught as ours and as the built-in error that it also is."""

import re

import pytest

from sepwise import errors

CLASSES = [c for c in vars(errors).values() if isinstance(c, type)]


@pytest.mark.parametrize("error", CLASSES, ids=lambda c: c.__name__)
def test_every_error_is_ours_and_keeps_its_sentence(error):
    assert issubclass(error, errors.SepwiseError)
    assert str(error("one sentence")) == "one sentence"


@pytest.mark.parametrize("error", CLASSES[1:], ids=lambda c: c.__name__)
def test_the_drawing_names_the_built_in_parent(error):
    drawn = re.search(rf"── {error.__name__} +\(also (\w+)\)", errors.__doc__ or "")
    assert drawn, f"{error.__name__} is missing in the drawing at the top of errors.py"
    assert [b.__name__ for b in error.__bases__] == ["SepwiseError", drawn[1]]
