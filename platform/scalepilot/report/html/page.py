"""Self-contained HTML pages: styles and scripts allowed by their hashes, pictures as images inside the page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def environment(finalize: Callable[[Any], Any] | None = None) -> jinja2.Environment:
    """Renders our templates, escaping what is filled in.

    Args:
        finalize: does something to every value before; None for nothing.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )


def render(template: str, styles: Sequence[str], values: Mapping[str, Any]) -> str:
    """The HTML file as text; what is filled in is escaped.

    Args:
        template: file among the templates; it is given `csp` and `style` beside the values.
        styles: stylesheets among the templates, in their order.
        values: what it shows.
    """
    style = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in styles)
    csp = f"default-src 'none'; style-src '{content_hash(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
    return (
        environment()
        .get_template(template)
        .render(
            csp=csp,
            style=Markup(style),  # noqa: S704 — our own files, not anyone's input
            **values,
        )
    )


def content_hash(text: str) -> str:
    """What a Content-Security-Policy allows a style or a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def image_address(image: str | bytes) -> str:
    """An SVG's text or a GIF as an image's address: there neither scripts nor styles of an SVG reach the page."""
    kind, content = ("svg+xml", image.encode()) if isinstance(image, str) else ("gif", image)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
