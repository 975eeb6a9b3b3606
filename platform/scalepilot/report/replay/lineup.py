"""What a replay shows: which policies, beside whom, through which episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scalepilot.config import PROTOCOL_PEAK_RPS, ExperimentConfig, config_from_mapping
from scalepilot.config.env import is_live
from scalepilot.errors import InputError
from scalepilot.evaluate.evaluation import trained_steps
from scalepilot.files.env_modules import find_checked
from scalepilot.policy import Policy, load_policy, located
from scalepilot.policy.rules import RULES, Hpa, HpaParameters, make_rule, rules_for
from scalepilot.policy.rules.command_line import has_settings, rule_from_text
from scalepilot.report.replay.autoscale_replay import AutoscaleReplay, Entry
from scalepilot.report.replay.env_replay import EnvReplay
from scalepilot.report.replay.recording import MOST_STEPS
from scalepilot.runs.folder import find_modules
from scalepilot.simulate import EpisodeSet, autoscale_optimum, poisson_episodes
from scalepilot.simulate.workload_data import named_workload, workload_name
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.description import ENV_ID as AUTOSCALE_ID
from scalepilot_envs.autoscale.description import describe as describe_autoscale
from scalepilot_envs.description import EnvDescription, params_from_mapping
from scalepilot_envs.registration import find_env
from scalepilot_envs.workloads import RateSeries, Workload, part_of

AUTOSCALE_STEPS = 480
_PATTERN = "diurnal"
HPA_DEFAULT, OPTIMUM = "hpa-default", "optimum"
# Longer episodes would keep a person waiting for the optimum; they are run without it unless it is asked for.
_OPTIMUM_STEPS = 2000
# Whom other environments are shown against: the first that fits.
_RIVALS = ("hpa", "threshold", "random")


@dataclass(frozen=True)
class DemoOptions:
    """What to show.

    Attributes:
        policies: run or policy folders, or names of rules.
        env: id of the environment; None for that of the first folder, or Autoscale-v0.
        pattern: workload kind or trace's file for Autoscale; None for what the first policy was trained on, its test part,
            or days and nights where none was trained.
        peak_rps: the pattern's 99.5 % quantile is scaled to this; 0 keeps it, None is protocol v1's 500.
        steps: of the episode at most; None for two hours of Autoscale or a whole episode of anything else.
        seed: of arrivals or environment; None runs the liveliest window.
        alone: without the default baselines.
        filmed: pictures are wanted.
    """

    policies: Sequence[str]
    env: str | None = None
    pattern: str | None = None
    peak_rps: float | None = None
    steps: int | None = None
    seed: int | None = None
    alone: bool = False
    filmed: bool = False


def make_replay(options: DemoOptions) -> AutoscaleReplay | EnvReplay:
    """Load everybody and put them at the start.

    Raises:
        InputError: no such policy, pattern or environment, or policies of different environments.
    """
    if options.steps is not None and options.steps < 1:
        raise InputError(f"--steps: {options.steps} is not allowed; allowed: whole numbers from 1")
    for name in options.policies:
        find_modules(Path(name))
    folders = {name: load_policy(name) for name in options.policies if located(name).exists()}
    env_id = _env_id(options.env, folders)
    if env_id == AUTOSCALE_ID:
        return _autoscale(options, folders)
    if options.peak_rps is not None:
        raise InputError(f"--peak-rps: is not used on {env_id}, which has no requests to serve; allowed: with Autoscale-v0")
    if options.pattern is not None:
        raise InputError(f"--workload {options.pattern}: {env_id} has no requests to serve; allowed: with Autoscale-v0")
    config = _config_of(folders)
    arguments: dict[str, Any] = {}
    if config is not None and find_env(config.env.id).env_id == env_id:
        arguments = config.env.arguments
    described = find_env(env_id).describe(**arguments)
    actors = [_actor(name, folders, described) for name in options.policies]
    if not options.alone:
        fitting = rules_for(described)
        rival = next((name for name in _RIVALS if name in fitting and name not in options.policies), None)
        if rival is not None:
            actors.append((rival, make_rule(rival, described)))
    return EnvReplay(_entries(actors), env_id, arguments, options.seed or 0, options.steps or MOST_STEPS, filmed=options.filmed)


def _env_id(asked: str | None, folders: dict[str, Policy]) -> str:
    """The one environment of everybody."""
    ids = {n: find_checked(p.spec.env_id, p.spec.env_options.get("wrappers")).env_id for n, p in folders.items()}
    try:
        wanted = None if asked is None else find_env(asked).env_id
    except ValueError as error:
        raise InputError(f"--{error!s}") from None
    env_id = wanted or next(iter(ids.values()), find_env("Autoscale-v0").env_id)
    for name, own in ids.items():
        if own != env_id:
            raise InputError(f"{name}: was made for {own}, the others for {env_id}; allowed: policies of one environment")
    return env_id


def _config_of(folders: dict[str, Policy]) -> ExperimentConfig | None:
    """What the first trained policy was trained with."""
    for name, policy in folders.items():
        stored = policy.spec.provenance.get("config")
        if stored and not is_live(stored):
            return config_from_mapping(stored, source=f"{name}: provenance.config")
    return None


def _actor(name: str, folders: dict[str, Policy], env: EnvDescription) -> tuple[str, Policy]:
    if name in folders:
        return folders[name].spec.name, folders[name]
    if has_settings(name):
        return name, rule_from_text(name, env)
    if name not in RULES:
        raise InputError(
            f"{name}: is neither a folder nor a rule; allowed: a run or policy folder, or {', '.join(rules_for(env))},"
            " with settings such as hpa:target=0.8 if wanted"
        )
    return name, make_rule(name, env)


def _entries(actors: Sequence[tuple[str, Any]]) -> list[Entry]:
    """With a phrase about each; a name that comes twice is numbered."""
    names = [name for name, _ in actors]
    entries = []
    for i, (name, actor) in enumerate(actors):
        earlier = names[:i].count(name)
        entries.append(Entry(f"{name} #{earlier + 1}" if earlier else name, _detail(actor), actor))
    return entries


def _detail(actor: Any) -> str:
    if not isinstance(actor, Policy):
        return "clairvoyant"
    provenance = actor.spec.provenance
    if actor.spec.kind == "rule":
        return "rule"
    return f"{provenance.get('algorithm', actor.spec.kind)}, seed {provenance.get('seed', '?')}{trained_steps(actor)}"


def _autoscale(options: DemoOptions, folders: dict[str, Policy]) -> AutoscaleReplay:
    first = next(iter(folders.values()), None)
    params: AutoscaleParams = params_from_mapping(AutoscaleParams, None if first is None else first.spec.env_params)
    described = describe_autoscale(params)
    config = _config_of(folders)
    workload: Workload
    peak_rps = PROTOCOL_PEAK_RPS if options.peak_rps is None else options.peak_rps
    if options.pattern is None and config is not None:
        if options.peak_rps is not None:
            raise InputError("--peak-rps: is not used on a policy's own workload; allowed: with --workload")
        name, workload, part = workload_name(config), config.workload, "test"
    else:
        (name, workload), part = (
            named_workload(options.pattern or _PATTERN, peak_rps),
            "all",
        )
    episode = _episode(name, _series(workload, part, params), options, params.arrival_dispersion)
    planned = episode.num_steps <= _OPTIMUM_STEPS or OPTIMUM in options.policies
    actors: list[tuple[str, Any]] = [_actor(name, folders, described) for name in options.policies if name != OPTIMUM]
    if not options.alone and "hpa" not in options.policies:
        actors.append((HPA_DEFAULT, Hpa(HpaParameters(), params, name=HPA_DEFAULT)))
    if OPTIMUM in options.policies or (planned and not options.alone and params.one_queue):
        actors.append((OPTIMUM, autoscale_optimum(episode, params).planner(OPTIMUM)))
    return AutoscaleReplay(_entries(actors), episode, params)


def _series(workload: Workload, part: Any, params: AutoscaleParams) -> RateSeries:
    try:
        return part_of(workload, part, params.interval_seconds)
    except ValueError as error:
        raise InputError(str(error)) from None


def _episode(name: str, series: RateSeries, options: DemoOptions, dispersion: float) -> EpisodeSet:
    """One window of the series: drawn by the seed, or the one whose rate varies most."""
    steps = min(options.steps or AUTOSCALE_STEPS, len(series))
    last = len(series) - steps
    if options.seed is not None:
        start = int(np.random.default_rng(options.seed).integers(0, last + 1))
    else:
        start = series.liveliest_start(steps)
    return poisson_episodes(name, series, np.array([start]), steps, [options.seed or 0], dispersion)
