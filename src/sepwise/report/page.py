"""Build the page: read the records, pick the kind of page, fill its template, write one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import SepwiseError
from ..extras import require
from ..files import whole_file
from . import conversion, fusion, inspection, lab, numerals
from .facts import FILE, Facts

TEMPLATES = Path(__file__).parent / "templates"


def build(folder: str | os.PathLike[str], out_path: str | os.PathLike[str] | None = None) -> Path:
    """Write one self-contained HTML file from the records and pictures of a folder.

    folder      holds records.jsonl and the pictures that the records name, by paths relative to it
    out_path    where the page goes; None: folder/report.html
    returns     the path written. The file appears whole or not at all.
    Raises SepwiseError when there is nothing to show, PictureError when a picture is missing or broken, OutputError
    when the place cannot be written, MissingExtraError without Jinja2 or Pillow.
    """
    folder = Path(folder)
    target = Path(out_path) if out_path is not None else folder / "report.html"
    jinja2 = require("jinja2", "the HTML report")
    facts = Facts.of(folder)
    if fusion.serves(facts):
        template, context = "fusion.html", fusion.context(facts, folder)
    elif conversion.serves(facts):
        template, context = "conversion.html", conversion.context(facts, folder)
    elif inspection.serves(facts):
        template, context = "inspection.html", inspection.context(facts, folder)
    elif lab.serves(facts):
        template, context = "lab.html", lab.context(facts, folder)
    else:
        raise SepwiseError(
            f"{folder / FILE} holds no record of a conversion, a fusion, an inspection or the lab, only "
            f"{', '.join(sorted(facts.by_what))}"
        )
    text = _environment(jinja2).get_template(template).render(context)
    with whole_file(target) as aside:
        aside.write_text(text, encoding="utf-8")
    return target


def _environment(jinja2: Any) -> Any:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("count", "short", "times", "degree", "percent", "size", "shape", "plain", "words"):
        environment.filters[name] = getattr(numerals, name)
    return environment
