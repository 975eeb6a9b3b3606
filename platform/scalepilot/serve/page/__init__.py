"""The page at /: three static files, nothing from the network."""

from __future__ import annotations

from importlib.resources import files

_KINDS = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
_FILES = {"/": "index.html", "/page/page.css": "page.css", "/page/page.js": "page.js"}


def page_files() -> dict[str, tuple[str, bytes]]:
    """Every file of the page.

    Returns:
        URL path → (content type, bytes).
    """
    folder = files(__name__)
    return {path: (_KINDS[name.rpartition(".")[2]], (folder / name).read_bytes()) for path, name in _FILES.items()}
