"""The page of claims says what the records say."""

from pathlib import Path

from bench import claims

PAGE = Path(__file__).resolve().parents[1] / "docs" / "claims.md"


def test_the_page_holds_the_table_of_the_records():
    assert claims.table() in PAGE.read_text(encoding="utf-8"), "run `./run bench claims` and put its table there"


def test_another_verdict_would_be_seen(monkeypatch):
    monkeypatch.setattr(claims, "judged", lambda *_: [])
    assert claims.table() != claims.table.__doc__
    assert "A5" not in claims.table()
