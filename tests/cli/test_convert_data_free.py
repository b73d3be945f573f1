"""`sepwise convert --data-free`: pictures made from the normalizations stand in for those that are missing."""

import json


def test_without_any_picture(convert):
    more = ("--data-free", "--limit", 8, "--size", 24, "--json", "--recover", "1epochs")
    code, out, _ = convert("small_networks:classifier", *more, images=None)
    assert code == 0
    data = json.loads(out)
    assert data["networks"]["separable"]["macs"] < data["networks"]["dense"]["macs"]
    assert data["recovery"]["pictures"] == 8


def test_measured_on_pictures_that_it_was_not_fitted_on(convert, tmp_path):
    code, out, _ = convert("small_networks:classifier", "--data-free", "--limit", 4, "--size", 24)
    assert code == 0
    report = (tmp_path / "out" / "report.html").read_text()
    assert "4 synthetic pictures, made from the statistics of the normalizations" in report
    assert "agreement with the dense network on " in out
    assert "synthetic" not in out.partition("agreement with")[2].partition("\n")[0]


def test_neither_pictures_nor_leave_to_do_without(refused):
    sentence = refused("small_networks:classifier", images=None)
    assert sentence == "give pictures to fit on, --images DIR, or --data-free if there are none"


def test_a_network_that_remembers_nothing(refused):
    sentence = refused("small_networks:edges", "--data-free", "--size", 24, images=None)
    assert "no batch normalization with running statistics" in sentence
    assert "give pictures" in sentence
