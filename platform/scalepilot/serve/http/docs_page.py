"""The page at /docs: Swagger UI from the package `swagger_ui_bundle`, nothing from the network."""

from __future__ import annotations

from pathlib import Path

# Beside our own files nothing of the package is reachable.
_BUNDLED = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Scalepilot · API</title>
  <link rel="icon" type="image/png" href="docs/favicon-32x32.png">
  <link rel="stylesheet" href="docs/swagger-ui.css">
  <link rel="stylesheet" href="docs/page.css">
</head>
<body>
  <div id="swagger-ui"><noscript>This page needs JavaScript; see <a href="openapi.json">openapi.json</a>.</noscript></div>
  <script src="docs/swagger-ui-bundle.js"></script>
  <script src="docs/page.js"></script>
</body>
</html>
"""
_STYLE = """body { margin: 0; background: #fafafa; }
.swagger-ui .info { margin: 28px 0; }
.swagger-ui .scheme-container { display: none; }
.swagger-ui table { font-variant-numeric: tabular-nums; }
.failed { font: 16px sans-serif; margin: 40px; }
"""
# The document uses only what OpenAPI 3.0 and 3.1 share; this Swagger UI refuses to read the number 3.1.
_SCRIPT = """fetch("openapi.json").then((answer) => answer.json()).then((document) => {
  window.ui = SwaggerUIBundle({
    spec: { ...document, openapi: "3.0.3" },
    dom_id: "#swagger-ui",
    deepLinking: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: -1,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
  });
}).catch((error) => {
  const text = document.createElement("p");
  text.className = "failed";
  text.textContent = "openapi.json could not be read: " + error;
  document.getElementById("swagger-ui").replaceChildren(text);
});
"""
CONTENT_SECURITY_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


def docs_files() -> dict[str, tuple[str, bytes]]:
    """Every file of the page.

    Returns:
        URL path → (content type, bytes).
    """
    from swagger_ui_bundle import swagger_ui_path

    files = {
        "/docs": ("text/html; charset=utf-8", _PAGE.encode()),
        "/docs/page.css": ("text/css; charset=utf-8", _STYLE.encode()),
        "/docs/page.js": ("text/javascript; charset=utf-8", _SCRIPT.encode()),
    }
    folder = Path(str(swagger_ui_path))
    return files | {f"/docs/{name}": (kind, (folder / name).read_bytes()) for name, kind in _BUNDLED.items()}
