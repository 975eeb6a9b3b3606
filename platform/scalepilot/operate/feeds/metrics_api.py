"""A feed for KEDA's `metrics-api` trigger: GET /v1/replicas of the controller's own door."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import TypeAdapter

from scalepilot.config import checked
from scalepilot.config.checks import Between, Section
from scalepilot.errors import ConfigError
from scalepilot.operate.feeds import FeedContext, Newest


@dataclass(frozen=True)
class MetricsApiSettings(Section):
    """Keys of `feed` with `kind: metrics_api`. It answers `/v1/replicas` where `listen` says.

    Attributes:
        max_age_seconds: of a decision that is still told; null for three intervals.
    """

    max_age_seconds: Annotated[float, Between(0, 86_400, above=True)] | None = None


_SETTINGS: TypeAdapter[MetricsApiSettings] = TypeAdapter(MetricsApiSettings)


class MetricsApiFeed:
    """Has no server of its own.

    Args:
        settings: how old a decision may be.
    """

    def __init__(self, settings: MetricsApiSettings) -> None:
        self.max_age_seconds = settings.max_age_seconds

    @contextlib.contextmanager
    def answering(self, newest: Newest) -> Iterator[str]:
        """The status server answers."""
        yield "GET /v1/replicas"


def make(settings: Mapping[str, Any], context: FeedContext) -> MetricsApiFeed:
    """The feed of these settings.

    Raises:
        ConfigError: a key or value that is not allowed, or no door to answer at.
    """
    if context.listen is None:
        raise ConfigError("listen: null is not allowed with feed.kind metrics_api; allowed: HOST:PORT, where it answers")
    return MetricsApiFeed(checked(MetricsApiSettings, _SETTINGS, dict(settings), "feed"))
