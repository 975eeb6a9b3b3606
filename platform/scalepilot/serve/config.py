"""ServeConfig: what `scalepilot serve --config` and the application's `args` on a cluster may say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import TypeAdapter

from scalepilot.config import checked, read_yaml
from scalepilot.config.checks import Between, OneOf, Section, Share, check_allowed
from scalepilot.errors import ConfigError
from scalepilot.files.ownership import check_own

Ingress = Literal["auto", "haproxy", "plain"]
# What needs no key where keys are set, if the configuration says so; health never needs one.
OPENABLE = ("metrics", "docs", "page")
ROUTES_FILE = "routes.yaml"
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}(@[A-Za-z0-9][A-Za-z0-9._-]{0,63})?")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]")
_MIB = 1 << 20


def check_reference(name: str, value: str) -> None:
    """Refuse what is neither a policy's name nor name@version."""
    if not _REFERENCE.fullmatch(value):
        raise ValueError(f"{name}: {value[:80]!r} is not allowed; allowed: a policy's name, or name@version")


@dataclass(frozen=True)
class CanaryConfig(Section):
    """A share of a policy's requests, answered by another.

    Attributes:
        policy: name or name@version; it takes the same observation.
        share: of the requests, drawn for each.
    """

    policy: str
    share: Share

    def __post_init__(self) -> None:
        check_reference("policy", self.policy)
        super().__post_init__()


@dataclass(frozen=True)
class RouteConfig(Section):
    """Who answers requests for a policy's name.

    Attributes:
        default: version that answers where the request names none; null for the highest (numbers compared as numbers).
        canary: another policy for a share of the requests.
        shadow: name or name@version that answers the same requests for nobody; only its disagreement is counted.
    """

    default: str | None = None
    canary: CanaryConfig | None = None
    shadow: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shadow is not None:
            check_reference("shadow", self.shadow)


@dataclass(frozen=True)
class LimitsConfig(Section):
    """What one client, or all together, may take.

    Attributes:
        body_bytes: of a request's body, counted as it arrives.
        request_seconds: for a request to arrive in full, and for its answer.
        body_bytes_per_second: least rate at which a body arrives, measured over two seconds; a slower one is answered 408.
        requests_per_replica: at once; more wait.
        queue_milliseconds: a request waits for a replica (with HAProxy), then is answered 503 with Retry-After.
        queued_requests: that wait, in all (without HAProxy).
        drain_seconds: a stopping server waits for what has begun.
        notice_seconds: a stopping server is not ready, but still answers, so that load balancers can turn away first.
    """

    body_bytes: Annotated[int, Between(1024, 1 << 30)] = _MIB
    request_seconds: Annotated[float, Between(0, 3600, above=True)] = 10.0
    body_bytes_per_second: Annotated[int, Between(0, 1 << 30)] = 4096
    requests_per_replica: Annotated[int, Between(1, 100_000)] = 64
    queue_milliseconds: Annotated[int, Between(1, 3_600_000)] = 50
    queued_requests: Annotated[int, Between(1, 1_000_000)] = 256
    drain_seconds: Annotated[float, Between(0, 3600)] = 10.0
    notice_seconds: Annotated[float, Between(0, 3600)] = 1.0


@dataclass(frozen=True)
class ServeConfig(Section):
    """What is served, how, and to whom.

    Attributes:
        policies: run or policy folders, readable where the replicas run; several versions of a name are welcome.
        watch: a folder whose policy folders (`NAME/VERSION/policy.json`, or any run or policy folder in it) are served, too:
            a new one is loaded, tried and taken in without a pause. Its `routes.yaml`, if any, stands in place of `routes`,
            also when it changes.
        watch_seconds: between two looks at it.
        routes: policy name → default version, canary, shadow.
        fallback: who answers where a policy gives no finite scores: hpa (the rule, without memory) or hold.
        replicas: processes that answer.
        ingress: haproxy (Linux), plain (Serve's own proxy), or auto: HAProxy where it runs.
        host: address to listen on; without keys only loopback.
        port: 0 for any free one.
        api_key_file: one key a line, read again when it changes; null for none.
        without_keys: on a cluster, where nobody here knows who reaches the port: say true to serve without keys.
        open: what needs no key although keys are set: metrics, docs, page. Health never needs one.
        cors_origins: origins whose pages may ask; none by default.
        allowed_hosts: names that the Host header may have (without port). On loopback without keys, localhost, 127.0.0.1, [::1]
            and `host` are always among them, and others are refused; with keys any is taken unless some are named here. Health
            answers under every name.
        require_signature: file of Ed25519 public keys (PEM); a policy that none of them signed is refused.
        limits: of requests.
        log_requests: errors, all or none; never a body.
        log_file: JSON lines are appended there; null for the standard error stream.
    """

    policies: tuple[str, ...] = ()
    watch: str | None = None
    watch_seconds: Annotated[float, Between(0.05, 3600)] = 1.0
    routes: dict[str, RouteConfig] = field(default_factory=dict)
    fallback: Annotated[str, OneOf(("hpa", "hold"))] = "hpa"
    replicas: Annotated[int, Between(1, 1000)] = 1
    ingress: Ingress = "auto"
    host: str = "127.0.0.1"
    port: Annotated[int, Between(0, 65_535)] = 8000
    api_key_file: str | None = None
    without_keys: bool = False
    open: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    require_signature: str | None = None
    limits: LimitsConfig = LimitsConfig()
    log_requests: Literal["errors", "all", "none"] = "errors"
    log_file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.open:
            check_allowed("open", name, OPENABLE)
        for origin in self.cors_origins:
            if not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+", origin):
                raise ValueError(
                    f"cors_origins: {origin[:80]!r} is not allowed; allowed: origins such as https://grafana.example"
                )
        for host in self.allowed_hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(
                    f"allowed_hosts: {host[:80]!r} is not allowed; allowed: names without port, such as scale.example or [::1]"
                )
        for name in self.routes:
            check_reference("routes", name)


_CONFIG: TypeAdapter[ServeConfig] = TypeAdapter(ServeConfig)
_ROUTES: TypeAdapter[dict[str, RouteConfig]] = TypeAdapter(dict[str, RouteConfig])


def load_serve_config(path: Path) -> ServeConfig:
    """Read a serve.yaml; relative paths in it are relative to its folder.

    Raises:
        ConfigError: the file, or a key or value in it, is not allowed.
        InputError: another user could change it: it says who may ask, and what is served.
    """
    values = read_yaml(path)
    check_own(path, "config")
    return serve_config(values, str(path), path.parent)


def serve_config(values: Any, source: str = "config", folder: Path | None = None) -> ServeConfig:
    """Plain data as a configuration.

    Raises:
        ConfigError: naming the first key that is not allowed, its value and what is.
    """
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: holds a {type(values).__name__}; allowed: keys and values, such as policies: [runs/demo]")
    if folder is not None:
        values = _relative_to(folder, values)
    return checked(ServeConfig, _CONFIG, values, source)


def load_routes(path: Path) -> dict[str, RouteConfig]:
    """Read a watched folder's routes.yaml.

    Raises:
        ConfigError: the file, or a key or value in it, is not allowed.
    """
    values = read_yaml(path)
    if not isinstance(values, dict | None):
        raise ConfigError(f"{path}: holds a {type(values).__name__}; allowed: policy names with default, canary or shadow")
    for name in values or {}:
        if not isinstance(name, str) or not _REFERENCE.fullmatch(name):
            raise ConfigError(f"{path}: {str(name)[:80]!r} is not allowed; allowed: policy names")
    return serve_config({"routes": values or {}}, str(path)).routes


def _relative_to(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    def placed(value: Any) -> Any:
        return str(folder / value) if isinstance(value, str) else value

    changed: dict[str, Any] = {
        k: placed(values[k]) for k in ("watch", "api_key_file", "require_signature", "log_file") if k in values
    }
    if isinstance(values.get("policies"), list):
        changed["policies"] = [placed(item) for item in values["policies"]]
    return values | changed
