"""OperateConfig: what `scalepilot operate --config` may say."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from scalepilot.config import checked, read_yaml
from scalepilot.config.checks import Section
from scalepilot.config.schema import Described
from scalepilot.errors import ArtifactError, ConfigError, InputError, did_you_mean
from scalepilot.files.ownership import check_own
from scalepilot.operate.guard import Limits
from scalepilot.operate.tick import Deciders
from scalepilot.operate.tracking import OperateTracking
from scalepilot.policy import Policy, check_same_fields, find_policy_folder, load_policy
from scalepilot.policy.decoder import moves
from scalepilot.policy.rules import RULES
from scalepilot.policy.rules.command_line import rule_from_text
from scalepilot.policy.spec import PolicySpec, env_of
from scalepilot_envs.autoscale import PRICE_FIELD, AutoscaleParams, Move, values_at_rest
from scalepilot_envs.autoscale.description import describe
from scalepilot_envs.autoscale.observation import MAX_LATE_REQUEST_REPLICA_HOURS, SERVICE_FIELDS, service_columns
from scalepilot_envs.autoscale.params import SERVICE_PARAMS
from scalepilot_envs.description import EnvDescription

_FALLBACK = ("hpa", "tracking:utilisation=0.7")


@dataclass(frozen=True)
class OperateConfig(Section):
    """What runs, on what, within which limits.

    Attributes:
        policy: run or policy folder, or a rule with its settings such as `hpa:target=0.6`.
        service: parameters of Autoscale-v0 that describe the service: of a rule any, such as `replica_capacity_rps`; of a policy
            that sees them (`env.params.observe_service`) `startup_seconds`, `wait_slo_seconds`, `service_time_seconds`,
            `interval_seconds`, `replica_capacity_rps`, bounds and prices, in place of those it was made with. The price of a late
            request may be given as `late_request_replica_hours`: higher is safer, lower is cheaper.
        telemetry: `kind` and what that kind takes: where the fields come from.
        target: `kind` and what that kind takes: what is scaled.
        feed: `kind` and what that kind takes: where an HPA or KEDA reads how many replicas there should be. It then scales, and
            nothing is written to the target.
        limits: what may be done, and when it may not.
        fallback: rules that decide where the policy gives nothing sound, or a required field is unknown for long: the first that
            needs nothing unknown. Those of the default are left out where the environment does not show what they read.
        shadows: further policies or rules; their targets are written down beside the policy's, and never asked for.
        assume: field → value that stands in where it is unknown: the policy can do without it.
        records: folder for the decisions, one file a day.
        listen: HOST:PORT for /status, /v1/decisions and /metrics; null for none.
        tracking: TensorBoard, Weights & Biases and MLflow are told of every decision.
    """

    policy: str = ""
    service: dict[str, Any] = field(default_factory=dict)
    telemetry: dict[str, Any] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=lambda: {"kind": "none"})
    feed: dict[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    fallback: tuple[str, ...] = _FALLBACK
    shadows: tuple[str, ...] = ()
    assume: dict[str, float] = field(default_factory=dict)
    records: str = "operate-records"
    listen: str | None = "127.0.0.1:9464"
    tracking: OperateTracking = field(default_factory=OperateTracking)


_CONFIG: TypeAdapter[OperateConfig] = TypeAdapter(OperateConfig)
_PATHS = ("records",)
# By so much of its cost a policy may be worse without a field that it is said to do without.
_MOST_WORSE = 0.05


def json_schema() -> dict[str, Any]:
    """The JSON Schema of an operate.yaml."""
    return _CONFIG.json_schema(schema_generator=Described)


def load_operate_config(path: Path) -> OperateConfig:
    """Read an operate.yaml; relative paths in it are relative to its folder.

    Raises:
        ConfigError: the file, or a key or value in it, is not allowed.
        InputError: another user could change it: it says what is scaled, and how far.
    """
    values = read_yaml(path)
    check_own(path, "config")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}; allowed: keys and values, such as policy: runs/demo")
    return operate_config(values, str(path), path.parent)


def operate_config(values: dict[str, Any], source: str = "config", folder: Path | None = None) -> OperateConfig:
    """Plain data as a configuration.

    Raises:
        ConfigError: naming the first key that is not allowed, its value and what is.
    """
    config = checked(OperateConfig, _CONFIG, values, source)
    if folder is None:
        return config
    placed = {name: str(folder / getattr(config, name)) for name in _PATHS}
    policies = {
        "policy": _placed(folder, config.policy),
        "shadows": tuple(_placed(folder, text) for text in config.shadows),
    }
    sections = {name: _beside(folder, getattr(config, name)) for name in ("target", "telemetry", "feed")}
    return replace(config, **placed, **policies, **sections)  # type: ignore[arg-type]


def _beside(folder: Path, section: dict[str, Any]) -> dict[str, Any]:
    """A section with the files that its keys name (`path`, `…_path`, `…_file`), at any depth, relative to a folder."""
    placed = {}
    for key, value in section.items():
        if isinstance(value, dict):
            value = _beside(folder, value)
        elif isinstance(value, str) and key.endswith(("path", "_file")):
            value = str(folder / value)
        placed[key] = value
    return placed


def _placed(folder: Path, text: str) -> str:
    return text if not text or text.partition(":")[0] in RULES or "://" in text else str(folder / text)


@dataclass(frozen=True)
class Service:
    """A policy with everything it needs to be asked.

    Attributes:
        env: what it was made for, or what the rule is told of the service.
        deciders: who decides.
        limits: with both bounds set.
        interval_seconds: between two decisions.
        feeds: whether others are told the target, and are to scale; nothing is written then.
        said: fields of the observation that the configuration itself says, such as the price of a late request.
    """

    env: EnvDescription
    deciders: Deciders
    limits: Limits
    interval_seconds: float
    feeds: bool = False
    said: frozenset[str] = frozenset()

    @property
    def constants(self) -> dict[str, float]:
        """Fields of the observation that are what the service is; none of a policy that does not see them."""
        params = self.env.params
        if not isinstance(params, AutoscaleParams) or not params.observe_service:
            return {}
        return {name: float(column[0]) for name, column in zip(SERVICE_FIELDS, service_columns(params, 1), strict=True)}

    def limits_of(self, *, dry_run: bool) -> Limits:
        """The limits; in a dry run, or with a feed, another controller scales, as it should, and nobody contests."""
        return replace(self.limits, takeover=True) if dry_run or self.feeds else self.limits

    @property
    def policy(self) -> str:
        """name@version."""
        spec = self.deciders.policy.spec
        return f"{spec.name}@{spec.version}"


def load_service(config: OperateConfig) -> Service:
    """The policies of a configuration, checked against each other.

    Raises:
        InputError: a policy cannot be loaded, moves no replicas, or looks at other fields than the first; a rule that does not
            fit; a limit outside of what the policy was made for; `service` beside a policy that brings its own.
    """
    if not config.policy:
        raise ConfigError("policy: none given; allowed: a run or policy folder, or a rule such as hpa:target=0.6")
    policy, env = _policy(config.policy, config.service)
    if "total_replicas" not in env.signals and not moves(env.actions):
        raise InputError(f"{config.policy}: scales nothing ({env.env_id} has no replicas); allowed: policies that do")
    return replace(service_of(config, policy, env), feeds=bool(config.feed))


def service_of(config: OperateConfig, policy: Policy, env: EnvDescription) -> Service:
    """A policy, and everything else that a configuration says of it; see `load_service`.

    Args:
        config: whose `policy` and `service` are not looked at.
        policy: that decides.
        env: what it was made for, as the service is.
    """
    try:
        limits = config.limits.within(*env.replica_bounds)
    except ValueError as error:
        raise ConfigError(f"limits.{error}") from None
    if isinstance(env.params, AutoscaleParams) and env.params.observe_service:
        # What may be asked for is what it is shown.
        bounds = {"min_replicas": limits.min_replicas, "max_replicas": limits.max_replicas}
        env = _with_params(env, replace(env.params, **bounds))  # type: ignore[arg-type]
    fallbacks = _fallbacks(config.fallback, env)
    shadows: dict[str, Policy] = {}
    for text in config.shadows:
        shadow = _policy(text, config.service, env)[0]
        check_same_fields(text, shadow.spec.observation_fields, policy.spec.observation_fields)
        shadows[shadow.spec.name] = shadow
    if len(shadows) < len(config.shadows):
        raise ConfigError("shadows: two have the same name; allowed: each its own")
    names = [f.name for f in policy.spec.observation_fields]
    for name in config.assume:
        if name not in names:
            raise ConfigError(f"assume: {name!r} is not a field of {policy.spec.name}; allowed: {', '.join(names)}")
    deciders = Deciders(policy, fallbacks, shadows, {**_at_rest(env, policy.spec), **config.assume})
    # Of an environment without a unit of time, telemetry says how long a step lasts; it refuses to where there is one.
    seconds = config.telemetry.get("interval_seconds")
    interval = float(seconds) if isinstance(seconds, int | float) and 0 < seconds <= 86_400 else env.interval_seconds
    # Prices in money are one field; limits bound what is shown.
    said = {PRICE_FIELD if name.startswith("price_per") else name for name in config.service}
    said |= {name for name in ("min_replicas", "max_replicas") if getattr(config.limits, name) is not None}
    return Service(env, deciders, limits, interval, said=frozenset(said))


def _fallbacks(texts: tuple[str, ...], env: EnvDescription) -> list[Policy]:
    found = []
    for text in texts:
        try:
            found.append(_rule(text, env, "fallback"))
        except ConfigError:
            # Nobody has asked for it.
            if texts != _FALLBACK:
                raise
    return found


def _policy(text: str, service: dict[str, Any], env: EnvDescription | None = None) -> tuple[Policy, EnvDescription]:
    if text.partition(":")[0] in RULES:
        if env is None:
            env = _described(service)
        return _rule(text, env, "policy"), env
    policy = load_policy(find_policy_folder(Path(text)))
    own = env_of(policy.spec)
    return policy, _as_service(text, own, service) if service and env is None else own


def _described(service: dict[str, Any]) -> EnvDescription:
    try:
        return describe(AutoscaleParams.from_mapping(_with_price(AutoscaleParams(), service)))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"service.{str(error).removeprefix('params.')}") from None


def _as_service(text: str, env: EnvDescription, service: dict[str, Any]) -> EnvDescription:
    """What a policy was made for, with the constants of another service in place of its own."""
    params = env.params
    if not isinstance(params, AutoscaleParams) or not params.observe_service:
        raise ConfigError(
            f"service: {text} brings its own; allowed: service beside a rule, or a policy that sees it"
            " (env.params.observe_service)"
        )
    allowed = sorted((PRICE_FIELD, "service_time_seconds", *SERVICE_PARAMS))
    for name in service:
        if name not in allowed:
            raise ConfigError(
                f"service: {name!r} is not allowed beside a policy; allowed: {', '.join(allowed)}{did_you_mean(name, allowed)}"
            )
    try:
        found = _with_params(env, AutoscaleParams.from_mapping(asdict(params) | _with_price(params, service)))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"service.{str(error).removeprefix('params.')}") from None
    low, high = env.replica_bounds
    for name in ("min_replicas", "max_replicas"):
        value = getattr(found.params, name)
        if not low <= value <= high:
            raise ConfigError(
                f"service.{name}: {value} is not allowed; allowed: {low:g} to {high:g}, which the policy was made for"
            )
    return found


def _with_params(env: EnvDescription, params: AutoscaleParams) -> EnvDescription:
    # Rewards and signals are computed with the parameters, too.
    return describe(params, [Move(a.kind, a.size) for a in env.actions])  # type: ignore[arg-type]


def _with_price(params: AutoscaleParams, service: dict[str, Any]) -> dict[str, Any]:
    """The price of a late request in currency, where it is given in replica-hours.

    Raises:
        ValueError: it is given twice, or is no price.
    """
    if PRICE_FIELD not in service:
        return service
    price, rest = service[PRICE_FIELD], {name: value for name, value in service.items() if name != PRICE_FIELD}
    if "price_per_late_request" in rest:
        raise ValueError(f"{PRICE_FIELD}: is given beside price_per_late_request; allowed: one of them")
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price <= MAX_LATE_REQUEST_REPLICA_HOURS:
        raise ValueError(f"{PRICE_FIELD}: {price!r} is not allowed; allowed: 0 to {MAX_LATE_REQUEST_REPLICA_HOURS:g}")
    hour = rest.get("price_per_replica_hour", params.price_per_replica_hour)
    return {**rest, "price_per_late_request": price * hour if isinstance(hour, int | float) else price}


def _rule(text: str, env: EnvDescription, where: str) -> Policy:
    try:
        return rule_from_text(text, env)
    except (ArtifactError, InputError) as error:
        raise ConfigError(f"{where}: {error}") from None


def _at_rest(env: EnvDescription, spec: PolicySpec) -> dict[str, float]:
    """What a service shows that nobody waits for, of the fields that a policy can do without, as its evaluation has measured."""
    if not isinstance(env.params, AutoscaleParams):
        return {}
    names, worse = {f.name for f in spec.observation_fields}, spec.evaluation.get("worse_without")
    # Rules, and policies evaluated before this was measured, are taken to need none of them.
    measured = worse.items() if isinstance(worse, dict) else ()
    dear = {name for name, share in measured if not (isinstance(share, int | float) and share <= _MOST_WORSE)}
    return {name: value for name, value in values_at_rest(env.params).items() if name in names - dear}


__all__ = ["OperateConfig", "Service", "load_operate_config", "load_service", "operate_config"]
