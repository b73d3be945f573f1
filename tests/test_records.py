"""Facts written down and read back."""

import json

import pytest

from sepwise import records
from sepwise.errors import SepwiseError
from sepwise.records import Record


def test_round_trip(tmp_path):
    path = tmp_path / "records.jsonl"
    facts = [
        Record("agreement.f1", 0.93, n=3, about={"pictures": ["a", "b"]}),
        Record("network.latency_ratio", 1.5, "x", 10, 0.1, {"threads": 1}, {"cores": 2}),
        Record("layer", {"name": "conv\n1 é", "rank": None}),
    ]
    records.append(path, facts[:1])
    records.append(path, facts[1:])
    assert list(records.read(path)) == facts
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3


def test_nothing_is_written_when_a_value_is_no_data(tmp_path):
    path = tmp_path / "records.jsonl"
    with pytest.raises(TypeError, match="not JSON serializable"):
        records.append(path, [Record("a", 1), Record("b", object())])
    assert not path.exists()


@pytest.mark.parametrize("line", ['{"what": "half', "[1]", '{"what": "a", "value": 1, "colour": 2}', '{"what": "a"}'])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "records.jsonl"
    records.append(path, [Record("whole", 1)])
    path.write_text(path.read_text() + line + "\n")
    read = records.read(path)
    assert next(read) == Record("whole", 1)
    with pytest.raises(SepwiseError, match=r"records\.jsonl, line 2, is not a record: "):
        next(read)


def test_here_stamps_the_machine():
    fact = records.here("time", 2.0, unit="ms", n=5)
    assert (fact.what, fact.value, fact.unit, fact.n, fact.spread) == ("time", 2.0, "ms", 5, None)
    assert set(fact.machine) == {"processor", "cores", "commit"}
    assert fact.machine["cores"] >= 1
    assert fact.machine["processor"]
    json.dumps(fact.machine)
