"""A folder of policies, looked at again and again: what appears is loaded, tried and taken in; what is unfit changes nothing."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from scalepilot.errors import ConfigError, InputError
from scalepilot.files.ownership import check_own, check_own_tree
from scalepilot.policy import read_spec
from scalepilot.policy.artifact import SPEC_FILE
from scalepilot.policy.signature import PublicKeys
from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.store import Catalogue, PolicyStore
from scalepilot.serve.config import ROUTES_FILE, RouteConfig, ServeConfig, load_routes
from scalepilot.serve.http.asgi import check_pages
from scalepilot.serve.http.logs import LOGGER
from scalepilot.serve.http.metrics import Metrics

_logger = logging.getLogger(LOGGER)
# Name, time, size, mode and owner of every file of a folder, and of the folders it is in: whatever changes, it is another one.
_Stamp = tuple[tuple[str | int, ...], ...]


def check_watched(folder: Path) -> None:
    """Refuse a folder into which others may put policies.

    Raises:
        InputError: missing, no folder, or within reach of other users.
    """
    try:
        found = folder.stat()
    except OSError as error:
        raise InputError(f"watch: {folder}: cannot be read ({error.strerror})") from None
    if not stat.S_ISDIR(found.st_mode):
        raise InputError(f"watch: {folder}: is not a directory; allowed: a folder of policy folders")
    check_own(folder, "watch")


class PolicyWatcher:
    """Keeps a store in step with a folder.

    Args:
        store: whose catalogue is replaced.
        config: the folder, and how policies are loaded.
        keys: whose signatures count; None takes unsigned policies, too.
        metrics: where loads and refusals are counted.
    """

    def __init__(
        self, store: PolicyStore, config: ServeConfig, *, keys: PublicKeys | None = None, metrics: Metrics | None = None
    ) -> None:
        assert config.watch is not None
        self._store = store
        self._folder = Path(config.watch)
        self._config, self._keys = config, keys
        self._metrics = metrics
        # Those named in the configuration stay, whatever the folder holds.
        self._named = list(store.catalogue)
        self._routes: dict[str, RouteConfig] = config.routes
        self._routes_seen: _Stamp | None = None
        # The last failure of a look, and of reading the routes: each is logged once, however often it comes.
        self._failure = self._problem = ""
        self._loaded: dict[Path, tuple[_Stamp, ServedPolicy]] = {}
        self._refused: dict[Path, _Stamp] = {}
        self._seen: dict[Path, _Stamp] | None = None
        self._kept: set[Path] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy-watcher", daemon=True)

    def start(self) -> None:
        """Look every `watch_seconds`, beside the requests."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._config.watch_seconds):
            try:
                self.look()
            except Exception as error:  # whatever the folder holds, what is served goes on, and the next look may succeed
                if str(error) != self._failure:
                    _logger.exception("watching failed", extra={"event": "watch_failed"})
                self._failure = str(error)

    def look(self) -> None:
        """Take in what changed since the last look.

        A folder is loaded once it looks the same twice: who copies a policy into it file by file is not done with the first. The
        first look of all takes everything as it is.
        """
        found = dict(_policy_folders(self._folder))
        settled = {folder: stamp for folder, stamp in found.items() if self._seen is None or self._seen.get(folder) == stamp}
        self._seen = found
        changed = self._drop_vanished(found)
        for folder, stamp in settled.items():
            loaded = self._loaded.get(folder)
            if (loaded is not None and loaded[0] == stamp) or self._refused.get(folder) == stamp:
                continue
            changed |= self._take_in(folder, stamp)
        changed |= self._read_routes()
        if changed:
            self._swap()

    def _policies(self) -> list[ServedPolicy]:
        return [*self._named, *(served for _, served in self._loaded.values())]

    def _take_in(self, folder: Path, stamp: _Stamp) -> bool:
        try:
            check_own_tree(folder)
            spec = read_spec(folder, self._keys)
            self._announce_loading(spec.name, spec.version)
            served = ServedPolicy.load(folder, fallback=self._config.fallback, keys=self._keys)
            check_pages(served)
            others = [other for path, (_, other) in self._loaded.items() if path != folder]
            Catalogue.of([*self._named, *others, served])
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this folder alone
            self._refused[folder] = stamp
            self._count("refused")
            before = self._loaded.get(folder)
            goes_on = "nothing else" if before is None else before[1].reference
            _logger.error(
                "policy refused; the previous one stays in service",
                extra={"event": "policy_refused", "folder": str(folder), "reason": str(error), "serving": goes_on},
            )
            self._store.catalogue = replace(self._store.catalogue, loading=frozenset())
            return False
        self._refused.pop(folder, None)
        self._loaded[folder] = (stamp, served)
        self._count("loaded")
        _logger.info(
            "policy loaded",
            extra={"event": "policy_loaded", "policy": served.spec.name, "version": served.spec.version, "folder": str(folder)},
        )
        return True

    def _announce_loading(self, name: str, version: str) -> None:
        """Who asks for it meanwhile is told to come back, not that it does not exist."""
        self._store.catalogue = replace(self._store.catalogue, loading=frozenset({(name, version)}))

    def _drop_vanished(self, found: dict[Path, _Stamp]) -> bool:
        changed = False
        self._refused = {folder: stamp for folder, stamp in self._refused.items() if folder in found}
        for folder in [folder for folder in self._loaded if folder not in found]:
            served = self._loaded[folder][1]
            rest = [other for other in self._policies() if other is not served]
            try:
                if not any(other.spec.name == served.spec.name for other in rest):
                    raise ConfigError("it is the last version of its name")
                Catalogue.of(rest, self._routes)
            except InputError as error:
                if folder not in self._kept:
                    self._kept.add(folder)
                    extra = {"event": "policy_kept", "policy": served.reference, "reason": str(error)}
                    _logger.warning("policy folder is gone; the policy stays in service", extra=extra)
                continue
            del self._loaded[folder]
            changed = True
            _logger.info("policy dropped", extra={"event": "policy_dropped", "policy": served.reference})
        self._kept &= set(self._loaded)
        return changed

    def _read_routes(self) -> bool:
        path = self._folder / ROUTES_FILE
        stamp = _stamp(path)
        # What it names may have come or gone meanwhile.
        if stamp == self._routes_seen and not self._problem:
            return False
        self._routes_seen = stamp
        try:
            if stamp:
                check_own(path, "watch")
            routes = load_routes(path) if stamp else self._config.routes
            Catalogue.of(self._policies(), routes)
        except Exception as error:  # noqa: BLE001 - whatever it is, the old ones go on
            if str(error) != self._problem:
                _logger.error("routes refused; the previous ones stay", extra={"event": "routes_refused", "reason": str(error)})
            self._problem = str(error)
            return False
        self._problem = ""
        self._routes = routes
        _logger.info("routes read", extra={"event": "routes_read", "names": len(routes)})
        return True

    def _swap(self) -> None:
        """Replace the catalogue in one step; a request has taken either the old or the new one."""
        policies = self._policies()
        try:
            catalogue = Catalogue.of(policies, self._routes)
        except ConfigError as error:
            _logger.error("routes no longer match the policies; ignored", extra={"event": "routes_unfit", "reason": str(error)})
            catalogue = Catalogue.of(policies)
        self._store.catalogue = catalogue
        defaults = ", ".join(served.reference for served in catalogue.defaults())
        _logger.info("serving", extra={"event": "serving", "defaults": defaults})

    def _count(self, result: str) -> None:
        if self._metrics is not None:
            self._metrics.count("policy_loads", (result,))


def _policy_folders(folder: Path) -> Iterator[tuple[Path, _Stamp]]:
    """Every policy folder at NAME, NAME/VERSION, or in a run at either place, with what tells whether it changed."""
    for child in _folders_in(folder):
        found = _policy_in(child)
        if found is not None:
            yield found
            continue
        for version in _folders_in(child):
            found = _policy_in(version)
            if found is not None:
                yield found


def _folders_in(folder: Path) -> list[Path]:
    """Without those that begin with a dot, in which folders are written aside; none where it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _policy_in(folder: Path) -> tuple[Path, _Stamp] | None:
    for candidate in (folder, folder / "policy"):
        # Whatever is called so; what is no file is refused in a line, not passed over.
        if os.path.lexists(candidate / SPEC_FILE):
            return candidate, _stamp(candidate)
    return None


def _stamp(path: Path) -> _Stamp:
    """Of a folder's files, or of one file; empty where nothing is there."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        found = [(file.name, _status(file)) for file in files]
        ways = [folder.stat() for folder in ((path, path.parent) if path.is_dir() else (path.parent,))]
    except OSError:
        return ()
    return (
        *((name, status.st_mtime_ns, status.st_size, status.st_mode, status.st_uid) for name, status in found),
        *((status.st_mode, status.st_uid) for status in ways),
    )


def _status(file: Path) -> os.stat_result:
    """Of what a link leads to; of the link where that is nothing."""
    try:
        return file.stat()
    except OSError:
        return file.lstat()
