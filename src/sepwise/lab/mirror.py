"""Finished trials copied to an MLflow server, for those who look at all their experiments there."""

from __future__ import annotations

from typing import Any

from ..errors import SepwiseError
from ..extras import require
from .recipe import Recipe
from .trials import Folder

KEY = "sepwise.trial"


def mirror(recipe: Recipe, folder: Folder, uri: str) -> int:
    """Write to the experiment `sepwise/RECIPE` every finished trial that is not there yet; the records stay the truth.

    uri        of the server, or sqlite:///FILE
    returns    how many were written
    Raises SepwiseError when the server refuses.
    """
    tracking: Any = require("mlflow.tracking", "copying trials to MLflow")
    try:
        client = tracking.MlflowClient(uri)
        name = f"sepwise/{recipe.name}"
        experiment = client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else client.create_experiment(name)
        known = {run.data.tags.get(KEY) for run in _runs(client, place)}
        new = {key: record for key, record in folder.trials(recipe).items() if key not in known}
        for key, record in new.items():
            _write(client, place, key, record.about, record.value)
    except Exception as error:
        raise SepwiseError(f"MLflow at {uri} refused: {type(error).__name__}: {error}".partition("\n")[0]) from None
    return len(new)


def _runs(client: Any, experiment: str) -> list[Any]:
    found, token = [], None
    while True:
        page = client.search_runs([experiment], page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _write(client: Any, experiment: str, key: str, about: dict[str, Any], numbers: dict[str, Any]) -> None:
    run = client.create_run(experiment, run_name=f"{about['arm']}, seed {about['seed']}").info.run_id
    for name in ("arm", "seed", "scale", "version"):
        client.log_param(run, name, about[name])
    for name, value in about["settings"].items():
        client.log_param(run, f"settings.{name}", value)
    for name, value in numbers.items():
        if isinstance(value, list) and all(isinstance(v, int | float) for v in value):
            for step, v in enumerate(value):
                client.log_metric(run, name, v, step=step)
        elif isinstance(value, int | float):
            client.log_metric(run, name, float(value))
    client.set_tag(run, KEY, key)  # last: a copy that was interrupted is made again
    client.set_terminated(run)
