"""From a configuration to a filled store: what the command checks before anything starts, and what every replica does."""

from __future__ import annotations

from pathlib import Path

from scalepilot.policy.signature import PublicKeys
from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.store import Catalogue, PolicyStore
from scalepilot.serve.catalogue.watch import PolicyWatcher, check_watched
from scalepilot.serve.config import ROUTES_FILE, ServeConfig
from scalepilot.serve.http.asgi import check_pages
from scalepilot.serve.http.metrics import Metrics


def open_store(config: ServeConfig, metrics: Metrics | None = None) -> tuple[PolicyStore, PolicyWatcher | None]:
    """Load what the configuration names and what its watched folder holds.

    Args:
        config: which policies.
        metrics: where the watcher counts.

    Returns:
        The store, and the watcher that keeps it in step, not started; None where no folder is watched.

    Raises:
        InputError: an unfit policy that is named, unfit keys or routes, or a folder that others may write to. Unfit policies in
            the watched folder are logged and left out.
    """
    keys = None if config.require_signature is None else PublicKeys(Path(config.require_signature))
    named = [ServedPolicy.load(Path(path), fallback=config.fallback, keys=keys) for path in config.policies]
    for served in named:
        check_pages(served)
    if config.watch is None:
        return PolicyStore(named, config.routes), None
    check_watched(Path(config.watch))
    # Its routes may name policies of the folder, which come with the first look.
    store = PolicyStore(named, may_be_empty=True)
    watcher = PolicyWatcher(store, config, keys=keys, metrics=metrics)
    watcher.look()
    if not (Path(config.watch) / ROUTES_FILE).exists() and len(store):
        Catalogue.of(list(store), config.routes)
    return store, watcher
