"""Who keeps an HPA or KEDA reads the target here and scales by itself; nothing is written by us.

One line a kind: its module in this folder, whose `make(settings, context)` returns a `Feed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from scalepilot.errors import ConfigError
from scalepilot.operate.feeds.offer import METRIC, Newest, Offer, Offers
from scalepilot.operate.kinds import made

if TYPE_CHECKING:
    from scalepilot.operate.config import OperateConfig

# kind → module; gRPC is imported there, when a feed of the kind is made.
KINDS = {
    "keda": "scalepilot.operate.feeds.keda",
    "metrics_api": "scalepilot.operate.feeds.metrics_api",
    "external_metrics": "scalepilot.operate.feeds.external_metrics",
}


# A function of OpenFaaS is a Deployment to them; Ray Serve and a farm of workers are nothing that they know.
_SCALED_BY_OTHERS = ("kubernetes", "file", "none")


class Feed(Protocol):
    """Tells an autoscaler the newest target, or that there is none."""

    @property
    def max_age_seconds(self) -> float | None:
        """Of a decision that is still told; None for three intervals."""
        ...

    def answering(self, newest: Newest) -> AbstractContextManager[str]:
        """Answer for the length of a `with` block.

        Args:
            newest: what there is to tell, at any time and from any thread.

        Yields:
            What a person should know of where it answers.

        Raises:
            InputError: an address that cannot be had.
        """
        ...


@dataclass(frozen=True)
class FeedContext:
    """What a feed may need beside its own settings.

    Attributes:
        target: NAMESPACE/NAME of what is scaled; "" where that is not known.
        interval_seconds: between two decisions.
        listen: of the controller's own door; None for none.
    """

    target: str
    interval_seconds: float
    listen: str | None


def check_target(target: str | None) -> None:
    """Refuse what is no NAMESPACE/NAME.

    Raises:
        ValueError: for a `Section`.
    """
    if target is not None and not (target.count("/") == 1 and all(target.split("/"))):
        raise ValueError(f"target: {target!r} is not allowed; allowed: NAMESPACE/NAME, such as shop/web")


def target_of(given: str | None, context: FeedContext) -> str:
    """NAMESPACE/NAME of what is scaled; "" where nobody knows.

    Raises:
        ConfigError: a feed for another target than the one that is read.
    """
    if given and context.target not in ("", given):
        raise ConfigError(f"feed.target: {given} is not the target, {context.target}; allowed: that one, or none")
    return given or context.target


def feed_of(config: OperateConfig, interval_seconds: float) -> Feed | None:
    """The feed of a whole configuration; None where it has none.

    Raises:
        InputError: as `make_feed`.
    """
    if not config.feed:
        return None
    target = config.target
    if target.get("kind") not in _SCALED_BY_OTHERS:
        raise ConfigError(
            f"feed: an HPA or KEDA does not scale target.kind {target.get('kind')!r}; allowed: {', '.join(_SCALED_BY_OTHERS)}"
        )
    name = f"{target.get('namespace')}/{target.get('name')}" if target.get("kind") == "kubernetes" else ""
    return make_feed(config.feed, FeedContext(name, interval_seconds, config.listen))


def make_feed(settings: Mapping[str, Any], context: FeedContext) -> Feed:
    """The feed a configuration names.

    Args:
        settings: its `feed` section: `kind`, and what that kind takes.
        context: of this process.

    Raises:
        ConfigError: an unknown kind, or a key or value the kind does not take.
        InputError: a certificate that is missing, or within reach of others.
    """
    found: Feed = made(KINDS, "feed", settings, context)
    return found


__all__ = [
    "KINDS",
    "METRIC",
    "Feed",
    "FeedContext",
    "Newest",
    "Offer",
    "Offers",
    "check_target",
    "feed_of",
    "make_feed",
    "target_of",
]
