"""Settings with a `kind`: one module a kind, imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from scalepilot.errors import ConfigError, did_you_mean


def made(kinds: Mapping[str, str], section: str, settings: Mapping[str, Any], context: Any) -> Any:
    """What the `make(settings, context)` of the kind's module makes.

    Args:
        kinds: kind → module.
        section: of the configuration, for messages.
        settings: `kind`, and what that kind takes.
        context: passed on.

    Raises:
        ConfigError: an unknown kind, or whatever the module refuses.
    """
    kind = settings.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"{section}.kind: {kind!r} is not allowed; allowed: {', '.join(kinds)}{did_you_mean(kind, kinds)}")
    return importlib.import_module(kinds[kind]).make({key: value for key, value in settings.items() if key != "kind"}, context)
