"""A survey that was stopped goes on where it was, to the same end; what is kept is never taken for another one's."""

import sys

import pytest
import torch
from torch import nn

from sepwise.conversion import survey
from sepwise.conversion.kept_survey import KeptSurvey
from sepwise.errors import WeightsError

FORMS = ("spatial", "tucker")


def model() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1))
    return nn.Sequential(*layers)


def pictures(seed: int = 1) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(6, 3, 12, 12)]


def stopped(folder, after: int) -> None:
    def stop(stage, done, _total):
        if stage == "survey" and done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        survey(model(), pictures(), forms=FORMS, progress=stop, kept=kept(folder))


def kept(folder, network=None, seed=1, forms=FORMS, batch_norm="fold") -> KeptSurvey:
    return KeptSurvey(folder, network or model(), pictures(seed), forms, batch_norm)


def test_a_stopped_survey_goes_on_to_the_same_end(tmp_path, monkeypatch):
    whole = survey(model(), pictures(), forms=FORMS)
    stopped(tmp_path / "s", after=2)
    fitted = []

    module = sys.modules["sepwise.conversion.survey"]
    true_fit = module.LayerFit
    monkeypatch.setattr(module, "LayerFit", lambda conv, *rest: fitted.append(conv) or true_fit(conv, *rest))
    again = survey(model(), pictures(), forms=FORMS, kept=kept(tmp_path / "s"))
    assert len(fitted) == 2  # of four
    assert [layer.name for layer in again.layers] == [layer.name for layer in whole.layers]
    for one, other in zip(whole.layers, again.layers, strict=True):
        assert (one.macs, one.size, one.conv) == (other.macs, other.size, other.conv)
        assert [(c.form, c.rank, c.macs, c.effect) for c in one.candidates] == [
            (c.form, c.rank, c.macs, c.effect) for c in other.candidates
        ]
        for a, b in zip(one.candidates, other.candidates, strict=True):
            assert all(map(torch.equal, a.fitted.weights, b.fitted.weights))
            assert torch.equal(a.fitted.bias, b.fitted.bias)


def changed_weights() -> nn.Module:
    network = model()
    with torch.no_grad():
        network.get_parameter("5.weight")[0, 0] += 1e-3
    return network


@pytest.mark.parametrize(
    "other",
    [{"seed": 2}, {"forms": ("spatial",)}, {"batch_norm": "keep"}, {"network": changed_weights()}],
    ids=["pictures", "forms", "norms", "weights"],
)
def test_another_survey_is_refused(tmp_path, other):
    stopped(tmp_path / "s", after=1)
    with pytest.raises(WeightsError, match="left from a conversion of other weights or pictures"):
        survey(model(), pictures(), forms=FORMS, kept=kept(tmp_path / "s", **other))


def test_a_damaged_file_is_refused_by_name(tmp_path):
    stopped(tmp_path / "s", after=1)
    (path,) = (tmp_path / "s").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError, match=path.name):
        survey(model(), pictures(), forms=FORMS, kept=kept(tmp_path / "s"))
