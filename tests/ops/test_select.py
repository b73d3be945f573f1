"""Choosing an implementation: the first that can for "auto", and never a silent fallback."""

from types import SimpleNamespace
from typing import Any

import pytest

from sepwise.errors import UnsupportedError
from sepwise.ops.select import select


def implementation(reason: str | None) -> Any:
    return SimpleNamespace(why_not=lambda call: reason, run=lambda call: None)


CAN, CANNOT = implementation(None), implementation("bfloat16 needs AMX, which this machine lacks")
LISTED = {"fast": CANNOT, "plain": CAN}


def test_auto_takes_the_first_that_can() -> None:
    assert select("op", LISTED, ["fast", "plain"], None, "auto") is CAN
    assert select("op", {"fast": CAN, "plain": CAN}, ["fast", "plain"], None, "auto") is CAN


def test_auto_quotes_every_refusal() -> None:
    with pytest.raises(
        UnsupportedError, match=r"op: no implementation can run this call\n    fast: bfloat16 needs AMX"
    ):
        select("op", LISTED, ["fast"], None, "auto")


def test_a_named_one_runs_or_says_why_not() -> None:
    assert select("op", LISTED, [], None, "plain") is CAN
    with pytest.raises(UnsupportedError, match="op: impl='fast' cannot run this call: bfloat16 needs AMX"):
        select("op", LISTED, ["plain"], None, "fast")


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UnsupportedError, match="there is no impl='quick'; give \"auto\" or 'fast', 'plain'"):
        select("op", LISTED, ["plain"], None, "quick")
