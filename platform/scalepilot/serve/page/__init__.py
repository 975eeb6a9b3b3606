"""The pages at / and /docs: static files of this package and of `swagger_ui_bundle`, nothing from the network."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
}
# Beside our own files nothing of the package is reachable.
_BUNDLED = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
_CONTENT_SECURITY_POLICY = b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


@cache
def page_files() -> dict[str, tuple[list[tuple[bytes, bytes]], bytes]]:
    """Every file of the pages.

    Returns:
        URL path → (headers, bytes).
    """
    from swagger_ui_bundle import swagger_ui_path

    found: dict[str, tuple[list[tuple[bytes, bytes]], bytes]] = {}
    for url, start, folder in (("/page", "/", files(__name__)), ("/docs", "/docs", files(__name__) / "docs")):
        for file in folder.iterdir():
            kind = _KINDS.get(Path(file.name).suffix)
            if kind is not None:
                found[start if file.name == "index.html" else f"{url}/{file.name}"] = _headers(kind), file.read_bytes()
    for name in _BUNDLED:
        bundled = Path(str(swagger_ui_path)) / name
        found[f"/docs/{name}"] = _headers(_KINDS[bundled.suffix]), bundled.read_bytes()
    return found


def _headers(kind: str) -> list[tuple[bytes, bytes]]:
    policy = [(b"content-security-policy", _CONTENT_SECURITY_POLICY)] if kind.startswith("text/html") else []
    return [(b"content-type", kind.encode()), *policy]
