"""Back to another version: a line in the watched folder's routes.yaml, which every replica reads within a second."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from scalepilot.errors import InputError
from scalepilot.files.atomic import write_bytes
from scalepilot.serve.catalogue.opening import open_store
from scalepilot.serve.config import ROUTES_FILE, RouteConfig, ServeConfig, load_routes
from scalepilot.serve.http.errors import RequestError
from scalepilot.serve.http.logs import muted


def roll_back(folder: Path, reference: str, config: ServeConfig) -> str:
    """Make another version of a policy the default.

    Args:
        folder: that is watched.
        reference: name for the version before the present default, or name@version.
        config: what is served, too.

    Returns:
        What was done, in a line.

    Raises:
        InputError: no such policy, or no version before.
    """
    with muted():
        store, _ = open_store(config)
    name, _, version = reference.partition("@")
    catalogue = store.catalogue
    try:
        now = catalogue.get(name).spec.version
        target = catalogue.get(name, version).spec.version if version else None
    except RequestError as error:
        raise InputError(str(error)) from None
    if target is None:
        versions = list(catalogue.versions[name])
        at = versions.index(now)
        if at == 0:
            raise InputError(
                f"rollback: {name}@{now} is the lowest version served; allowed: name@version of {', '.join(versions)}"
            )
        target = versions[at - 1]
    path = folder / ROUTES_FILE
    routes = dict(load_routes(path) if path.exists() else config.routes)
    routes[name] = replace(routes.get(name, RouteConfig()), default=target)
    write_bytes(path, yaml.safe_dump({key: _plain(route) for key, route in routes.items()}, sort_keys=False).encode())
    return f"{name}: {now} → {target} ({path}; servers that watch the folder switch within seconds)"


def _plain(route: RouteConfig) -> dict[str, Any]:
    return {key: value for key, value in asdict(route).items() if value is not None}
