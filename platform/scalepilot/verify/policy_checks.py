"""Whether a policy artifact loads, fits its environment, and acts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.config import config_from_mapping
from scalepilot.config.env import is_live
from scalepilot.errors import InputError, ScalepilotError
from scalepilot.files.env_modules import find_checked
from scalepilot.policy import Decision, Policy, PolicySpec, env_fields, load_policy, unmasked
from scalepilot.policy.spec import FieldEntry, env_of
from scalepilot.simulate import as_rows
from scalepilot.verify.finding import Finding, error, warning
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.description import EnvDescription
from scalepilot_envs.registration import find_env, is_own

_NUM_ENVS, _STEPS, _SINGLE = 8, 8, 8
_EXPORT = "export it again, or train again; do not serve this one"
_BATCH_TOLERANCE = 1e-4


def load_findings(folder: Path, where: str) -> tuple[Policy | None, list[Finding]]:
    """Load an artifact: schema, hashes, operators, spaces.

    Args:
        folder: of the artifact.
        where: what findings call it.
    """
    try:
        return load_policy(folder), []
    except ScalepilotError as problem:
        what = str(problem).removeprefix(f"{folder}/").removeprefix(f"{folder}: ")
        return None, [error(where, what, _EXPORT)]
    except Exception as problem:  # noqa: BLE001 - a tampered file may raise anything
        return None, [error(where, f"does not load ({type(problem).__name__}: {problem})", _EXPORT)]


def policy_findings(policy: Policy, where: str) -> Iterator[Finding]:
    """Fields and bounds against the environment's, then what it decides on observations of it."""
    spec = policy.spec
    try:
        env = find_checked(spec.env_id, spec.env_options.get("wrappers")).describe(spec.env_params, **spec.env_options)
    except (TypeError, ValueError, InputError) as problem:
        if not is_own(spec.env_id) and spec.kind != "rule":
            yield warning(where, str(problem), "it can be served all the same; to have fields and actions checked: PYTHONPATH")
            yield from _acts(policy, env_of(spec), lambda: drawn_observations(spec), where)
            return
        yield error(where, str(problem), "install what registers the environment")
        return
    yield from _field_findings(spec, env, where)
    yield from _acts(policy, env, lambda: observations_of(spec, env), where)


def _acts(policy: Policy, env: EnvDescription, observations: Callable[[], NDArray[Any]], where: str) -> Iterator[Finding]:
    try:
        observation = observations()
        decision, _ = policy.act(observation)
    except Exception as problem:  # noqa: BLE001 - a policy that raises is what is looked for
        yield error(where, f"does not act ({type(problem).__name__}: {problem})", _EXPORT)
        return
    yield from _decision_findings(policy, env, observation, decision, where)


def drawn_observations(spec: PolicySpec) -> NDArray[Any]:
    """(64, num_fields) or (64, *shape) numbers within what policy.json says of them, where the environment is not here."""
    rng, shape = np.random.default_rng(0), (_NUM_ENVS * _STEPS, *spec.observation_shape)
    drawn: NDArray[Any] = rng.random(shape)
    if spec.image is not None:
        drawn *= 255 if spec.observation_dtype == "uint8" else 1
        return drawn.astype(np.dtype(spec.observation_dtype))
    low = np.array([f.low if np.isfinite(f.low) else -1.0 for f in spec.observation_fields])
    high = np.array([f.high if np.isfinite(f.high) else 1.0 for f in spec.observation_fields])
    drawn = low + drawn * (np.maximum(low, high) - low)
    whole = np.array([np.issubdtype(np.dtype(f.dtype), np.integer) for f in spec.observation_fields])
    drawn[:, whole] = np.rint(drawn[:, whole])
    if spec.num_masked:
        drawn[:, -spec.num_masked :] = 1.0
    return drawn.astype(np.dtype(spec.observation_dtype))


def observations_of(spec: PolicySpec, env: EnvDescription) -> NDArray[Any]:
    """(64, num_fields) or (64, *shape) observations of random play."""
    arguments: dict[str, Any] = {}
    stored = spec.provenance.get("config")
    if stored and not is_live(stored):
        arguments = config_from_mapping(stored).env.arguments
    if not arguments:
        arguments = {**({"params": spec.env_params} if spec.env_params else {}), **spec.env_options}
    if isinstance(params := arguments.get("params"), AutoscaleParams):
        # What is deployed in a run may see the run's service otherwise than the run's own policy.
        arguments = {**arguments, "params": params.seen_as(spec.env_params)}
    envs = find_env(spec.env_id).vector_maker()(num_envs=_NUM_ENVS, **arguments)
    rng, rows = np.random.default_rng(0), [envs.reset(seed=0)[0]]
    for _ in range(_STEPS - 1):
        shares = rng.random((_NUM_ENVS, max(1, len(env.components))))
        rows.append(envs.step(env.actions_at(shares, rows[-1]))[0])
    envs.close()
    joined = np.concatenate([as_rows(np.asarray(row)) for row in rows])
    return joined.astype(spec.observation_dtype)


def _field_findings(spec: PolicySpec, env: EnvDescription, where: str) -> Iterator[Finding]:
    # One of before there were masks saw an environment's fields without them.
    theirs = {f.name: f for f in (env_fields(env) if spec.num_masked else unmasked(env_fields(env)))}
    mend = "someone changed policy.json, or the environment has another version; train again"
    if [f.name for f in spec.observation_fields] != list(theirs):
        shown = next((f.name for f in spec.observation_fields if f.name not in theirs), "their order")
        yield error(f"{where}/policy.json", f"observation fields are not those of {spec.env_id}: {shown}", mend)
        return
    for field in spec.observation_fields:
        own = _as_seen(theirs[field.name], spec.provenance.get("observations_outside"))
        if (field.low, field.high) != (own.low, own.high):
            bounds = f"bounds {field.low:g} to {field.high:g}, {spec.env_id} has {own.low:g} to {own.high:g}"
            yield error(f"{where}/policy.json", f"field {field.name}: {bounds}", mend)
        elif (field.shape, field.dtype) != (own.shape, own.dtype):
            kinds = f"{field.dtype} {field.shape}, {spec.env_id} shows {own.dtype} {own.shape}"
            yield error(f"{where}/policy.json", f"field {field.name}: {kinds}", mend)
    moves = [(a.kind, a.size) for a in spec.actions]
    if spec.actions and moves != [(a.kind, a.size) for a in env.actions]:
        yield error(f"{where}/policy.json", f"its action table is not that of {spec.env_id}", mend)


def _as_seen(own: FieldEntry, outside: Any) -> FieldEntry:
    """The environment's field with bounds as wide as what training saw of it, which is what a policy keeps."""
    seen = outside.get(own.name) if isinstance(outside, Mapping) else None
    if not isinstance(seen, Mapping):
        return own
    return replace(own, low=min(own.low, seen["lowest"]), high=max(own.high, seen["highest"]))


def _decision_findings(
    policy: Policy, env: EnvDescription, observation: NDArray[Any], decision: Decision, where: str
) -> Iterator[Finding]:
    scores, action, desired = decision.scores, decision.action, decision.desired_replicas
    if scores is not None and not np.isfinite(scores).all():
        yield error(where, f"{int((~np.isfinite(scores)).sum())} of its {scores.size} scores are not finite", _EXPORT)
        return
    if action is not None and action.ndim == 1 and not ((action >= 0) & (action < len(env.actions))).all():
        yield error(where, f"chooses actions outside 0 to {len(env.actions) - 1}", _EXPORT)
    if action is not None and action.ndim == 2 and not np.isfinite(action).all():
        yield error(where, "gives actions that are not finite", _EXPORT)
    low, high = env.replica_bounds
    if desired is not None and not (np.isfinite(desired).all() and ((desired >= low) & (desired <= high)).all()):
        yield error(where, f"wants replicas outside {low:g} to {high:g}", _EXPORT)
    for i in range(_SINGLE):
        single, _ = policy.act(observation[i : i + 1])
        if not _same(single, decision, i):
            yield error(where, "decides otherwise for one observation than for a batch of them", _EXPORT)
            return


def _same(single: Decision, batch: Decision, i: int) -> bool:
    """Equal decisions; scores that tie within rounding may fall either way."""
    if batch.scores is not None and single.scores is not None:
        return bool(np.allclose(single.scores[0], batch.scores[i], rtol=_BATCH_TOLERANCE, atol=_BATCH_TOLERANCE))
    pairs = ((single.action, batch.action), (single.desired_replicas, batch.desired_replicas))
    return all(one is None or many is None or np.allclose(one[0], many[i], atol=_BATCH_TOLERANCE) for one, many in pairs)
