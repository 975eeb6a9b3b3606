"""Self-contained HTML pages without scripts: one stylesheet allowed by its hash, pictures as images inside the page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, styles: Sequence[str], values: Mapping[str, Any]) -> str:
    """The HTML file as text; what is filled in is escaped.

    Args:
        template: file among the templates; it is given `csp` and `style` beside the values.
        styles: stylesheets among the templates, in their order.
        values: what it shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in styles)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    csp = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return environment.get_template(template).render(
        csp=csp,
        style=Markup(style),  # noqa: S704 — our own files, not anyone's input
        **values,
    )


def svg_address(svg: str) -> str:
    """An SVG as the address of an image: nothing in it can touch the page."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
