"""`sepwise lab`: list, run and report as a user calls them."""

import json
from pathlib import Path

import pytest

from sepwise import cli


def lab(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["lab", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def results(tmp_path, capsys) -> str:
    folder = str(tmp_path / "results")
    assert lab(capsys, "run", "arithmetic", "equal_functions", "--results", folder, "--scale", "smoke")[0] == 0
    return folder


def test_list_before_anything_was_run(tmp_path, capsys):
    code, out, _ = lab(capsys, "list", "--results", str(tmp_path / "none"))
    assert code == 0
    assert out.count("not run ") == 22
    assert "sepwise lab run figure4" in out
    assert not list(tmp_path.iterdir())


def test_list_names_every_claim_with_its_verdict(results, capsys):
    code, out, _ = lab(capsys, "list", "--json", "--results", results, "--scale", "smoke")
    claims = {c["id"]: c for c in json.loads(out)["claims"]}
    assert code == 0
    assert len(claims) == 22
    assert {c["verdict"] for i, c in claims.items() if c["recipe"] in ("arithmetic", "equal_functions")} == {"holds"}
    assert claims["A5"]["measured"].startswith("3 of 3 numbers are as claimed")
    assert claims["G1"]["verdict"] is None
    assert (claims["A9"]["trials"], claims["A9"]["trials_wanted"]) == (14, 14)


def test_run_prints_what_was_found_and_goes_on(results, capsys):
    kept = Path(results, "arithmetic.jsonl").read_bytes()
    code, out, _ = lab(capsys, "run", "arithmetic", "--results", results, "--scale", "smoke")
    assert code == 0
    assert "A5  holds" in out
    assert Path(results, "arithmetic.jsonl").read_bytes() == kept


def test_report_writes_one_page(results, tmp_path, capsys):
    page = tmp_path / "lab.html"
    code, out, _ = lab(capsys, "report", "--results", results, "--scale", "smoke", "--out", str(page))
    text = page.read_text()
    assert code == 0
    assert str(page) in out
    assert text.count("<section") >= 23
    assert "9 of 22 claims tested" in text
    assert "sepwise lab run arithmetic --scale smoke" in text
    assert "http" not in text.replace("http://www.w3.org", "").split("</style>")[1].split("Reproduce")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "name a recipe to run: arithmetic"),
        (["run", "figure5"], "there is no recipe 'figure5'"),
        (["run", "darknet"], "this recipe needs CIFAR-10: pass --data"),
        (["run", "darknet", "--data", "nowhere"], "there is no nowhere/train.parquet: pass --data"),
        (["run", "arithmetic", "--seeds", "0"], "--seeds 0: expected an integer >= 1"),
        (["list", "arithmetic"], "lab list takes no recipe"),
        (["report", "--out", "."], "is a folder"),
    ],
)
def test_refusals(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = lab(capsys, *arguments, "--scale", "smoke", "--workers", "1")
    assert code == 1
    assert message in err


def test_damaged_lines_are_told(results, capsys):
    with open(Path(results, "arithmetic.jsonl"), "a") as file:
        file.write('{"what": "lab.tri')
    code, out, _ = lab(capsys, "list", "--results", results, "--scale", "smoke")
    assert code == 0
    assert "1 damaged lines in its records are counted as no trial" in out
