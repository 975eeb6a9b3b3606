"""The page at /: static files of this package, nothing from the network."""

from __future__ import annotations

from importlib.resources import files

_KINDS = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
_PARTS = (
    *("page.css", "page.js", "api.js", "commands.js", "decision.js", "dom.js", "evaluation.js", "fields.js", "grid.js"),
    *("map.js", "plot.js", "policies.js", "quantities.js"),
)
_FILES = {"/": "index.html"} | {f"/page/{name}": name for name in _PARTS}


def page_files() -> dict[str, tuple[str, bytes]]:
    """Every file of the page.

    Returns:
        URL path → (content type, bytes).
    """
    folder = files(__name__)
    return {path: (_KINDS[name.rpartition(".")[2]], (folder / name).read_bytes()) for path, name in _FILES.items()}
