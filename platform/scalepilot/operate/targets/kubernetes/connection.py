"""Where the API server is and who asks: the pod's service account, or a kubeconfig."""

from __future__ import annotations

import datetime as dt
import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import yaml
from lightkube import ConfigError as LightkubeConfigError
from lightkube import KubeConfig, SingleConfig
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import SERVICE_ACCOUNT

from scalepilot.errors import ConfigError
from scalepilot.files.ownership import check_own

# Raised while a request is made, where the token's file is gone.
AuthError = LightkubeConfigError
# What a file that is no kubeconfig, or half of one, makes of the code that reads it.
_UNUSABLE = (
    LightkubeConfigError,
    msgspec.ValidationError,
    yaml.YAMLError,
    OSError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
)
_EXEC_SECONDS = 20.0
_EXPIRES_EARLY_SECONDS = 60.0


@dataclass(frozen=True)
class Connection:
    """What a client needs.

    Attributes:
        server: address.
        verify: certificates it accepts, and its own.
        auth: puts the token on each request.
    """

    server: str
    verify: ssl.SSLContext
    auth: httpx2.Auth | None


def connect(kubeconfig: str | None, context: str | None) -> Connection:
    """The connection of this process: its service account inside a cluster, else a kubeconfig.

    Args:
        kubeconfig: its path; None for the service account, else `KUBECONFIG`, else `~/.kube/config`.
        context: of the kubeconfig; None for its current one.

    Raises:
        ConfigError: there is none, or it cannot be used.
    """
    if kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ and Path(SERVICE_ACCOUNT).is_dir():
        try:
            return _connection(KubeConfig.from_service_account().get())
        except (LightkubeConfigError, OSError) as error:
            raise ConfigError(f"target: the service account in {SERVICE_ACCOUNT} cannot be used: {error}") from None
    # kubectl merges several files of this variable; the first that exists is taken here.
    named = [kubeconfig] if kubeconfig else os.environ.get("KUBECONFIG", "~/.kube/config").split(os.pathsep)
    path = next((found for found in (Path(name).expanduser() for name in named if name) if found.exists()), None)
    if path is None:
        raise ConfigError(f"target.kubeconfig: {os.pathsep.join(named)} does not exist, and this is not a pod in a cluster")
    # It names commands to run and servers to trust.
    path = check_own(path, "target.kubeconfig")
    try:
        return _connection(KubeConfig.from_file(path).get(context))
    except _UNUSABLE as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"target.kubeconfig: {path} cannot be used: {type(error).__name__}: {line}") from None


def _connection(config: SingleConfig | None) -> Connection:
    if config is None or config.user is None:
        raise LightkubeConfigError("its context names no user")
    auth: httpx2.Auth | None
    if config.user.exec is not None and config.user.token is None and config.user.token_file is None:
        auth = ExecAuth(_exec_section(config), config.fname.parent if config.fname else Path())
    else:
        auth = user_auth(config.user)
    return Connection(config.cluster.server, verify_cluster(config.cluster, config.user, config.abs_file), auth)


def _exec_section(config: SingleConfig) -> dict[str, Any]:
    assert config.user is not None
    section: dict[str, Any] = msgspec.to_builtins(config.user.exec)
    return section


class ExecAuth(httpx2.Auth):
    """The token that a cloud's command prints (EKS, GKE, AKS), until it expires or is refused.

    lightkube's own knows only the beta versions of the protocol, waits for ever and asks once.

    Args:
        section: `exec` of the kubeconfig.
        folder: of the kubeconfig, to which its paths are relative.
    """

    def __init__(self, section: dict[str, Any], folder: Path) -> None:
        command = section["command"]
        self._command = [str(folder / command) if os.sep in command else command, *(section.get("args") or ())]
        self._environ = {entry["name"]: entry["value"] for entry in section.get("env") or ()}
        self._version = section["apiVersion"]
        self._lock = threading.Lock()
        self._token = ""
        self._expires = 0.0

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Put the token on a request; once more with a new one where it is refused."""
        token = self._current("")
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        # Whatever it asked for, nothing was done.
        if response.status_code == 401:
            request.headers["Authorization"] = f"Bearer {self._current(token)}"
            yield request

    def _current(self, refused: str) -> str:
        with self._lock:
            if not self._token or self._token == refused or time.time() >= self._expires - _EXPIRES_EARLY_SECONDS:
                self._token, self._expires = self._run()
            return self._token

    def _run(self) -> tuple[str, float]:
        info = {"apiVersion": self._version, "kind": "ExecCredential", "spec": {"interactive": False}}
        environ = {**os.environ, **self._environ, "KUBERNETES_EXEC_INFO": json.dumps(info)}
        try:
            ran = subprocess.run(  # noqa: S603 (the kubeconfig is the user's own, checked above)
                self._command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=_EXEC_SECONDS, check=True
            )
            status = json.loads(ran.stdout)["status"]
            token = status["token"]
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip().splitlines()
            raise OSError(f"{self._command[0]} exited {error.returncode}: {said[-1] if said else ''}") from None
        except (subprocess.TimeoutExpired, ValueError, LookupError, TypeError) as error:
            raise OSError(f"{self._command[0]} printed no token: {type(error).__name__}: {error}") from None
        expires = status.get("expirationTimestamp")
        return str(token), float("inf") if expires is None else dt.datetime.fromisoformat(expires).timestamp()


__all__ = ["AuthError", "Connection", "ExecAuth", "connect"]
