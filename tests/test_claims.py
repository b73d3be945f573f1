"""The page of claims says what the records say."""

from dataclasses import replace
from pathlib import Path

from bench import claims
from sepwise.lab import LEDGER, judged

PAGE = Path(__file__).resolve().parents[1] / "docs" / "claims.md"


def test_the_page_holds_the_table_of_the_records():
    table = claims.table()
    assert len(table.splitlines()) == 2 + len(LEDGER)
    assert table in PAGE.read_text(encoding="utf-8"), "run `./run bench claims` and put its table there"


def test_another_verdict_is_seen(monkeypatch):
    def changed(folder, scale):
        first, *others = judged(folder, scale)
        assert first.finding is not None
        return [replace(first, finding=replace(first.finding, verdict="not shown")), *others]

    monkeypatch.setattr(claims, "judged", changed)
    assert claims.table() not in PAGE.read_text(encoding="utf-8")
