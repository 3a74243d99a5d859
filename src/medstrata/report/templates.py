"""Pages from templates: one style, one set of words and colours; everything that is put in is escaped."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from medstrata.report import wording
from medstrata.report.figures import colour, marker, shade


def render_template(name: str, **values: object) -> str:
    """Fill the template ``name`` of this room; each template gets ``style`` beside ``values``."""
    environment = Environment(
        loader=PackageLoader("medstrata", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=wording.count,
        percent=wording.percent,
        number=wording.number,
        readable=wording.readable,
        listing=wording.listing,
    )
    environment.globals.update(colour=colour, marker=marker, shade=shade)
    environment.globals.update(agreement_words=wording.agreement, things=wording.things)
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return environment.get_template(name).render(style=Markup(style), **values)
