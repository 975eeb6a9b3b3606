"""Start training from a policy: what fits its weights, and what of them a policy's file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.config import ExperimentConfig, config_from_mapping
from scalepilot.config.algorithms import ALGORITHMS, names
from scalepilot.errors import InputError
from scalepilot.files.ownership import check_own_tree
from scalepilot.policy import NetworkPolicy, Policy, PolicySpec, TablePolicy, find_policy_folder, load_policy
from scalepilot_envs.registration import same_id

Arrays = dict[str, NDArray[Any]]
_VARIANCE_FLOOR = 1e-6
REWARD_SCALE = "reward_scale"
# Of the budget, until a fresh value network knows what a given policy is worth.
_WAITS_SHARE = 0.1


def load_parent(path: Path, algorithm: str) -> Policy:
    """The policy of a folder, or of a run's.

    Raises:
        InputError: it cannot start this algorithm, or others can write to it.
    """
    record = ALGORITHMS[algorithm]
    if not record.starts_from_policy:
        allowed = ", ".join(names(starts_from_policy=True))
        raise InputError(f"--init: algorithm {algorithm} cannot start from a policy; allowed: {allowed}")
    folder = find_policy_folder(path)
    policy = load_policy(check_own_tree(folder, "init"))
    kind, rules = record.policy_kind, record.starting_rules
    if policy.spec.kind != kind or policy.spec.decision_rule not in rules:
        given = f"a {policy.spec.kind} with decision rule {policy.spec.decision_rule}"
        raise InputError(f"--init {path}: {given} cannot start {algorithm}; allowed: a {kind} with {' or '.join(rules)}")
    return policy


def taken_over(config: ExperimentConfig, parent: PolicySpec) -> tuple[ExperimentConfig, dict[str, Any]]:
    """The experiment as a policy can go on in it: its service shown as the policy sees one, its network in the policy's shape.

    What a policy sees is a view of the service (fields, history, window); the service itself stays the experiment's.

    Args:
        config: the experiment.
        parent: what it is to start from.

    Returns:
        The experiment, and dotted key → value of what has changed.

    Raises:
        ConfigError: what the policy says of itself is not allowed here.
    """
    given, section = config.to_mapping(), ALGORITHMS[config.algorithm].section
    wanted: dict[tuple[str, ...], Any] = {}
    if config.env.takes_workload and same_id(parent.env_id, config.env.description.env_id):
        params = config.autoscale.params
        shown = asdict(params.seen_as(parent.env_params))
        wanted = {("env", "params", key): value for key, value in shown.items()}
    stored = parent.provenance.get("config")
    network = stored.get(section) if isinstance(stored, Mapping) else None
    if isinstance(network, Mapping):
        wanted |= {(section, key): network[key] for key in config.learning.shapes_network if key in network}
    if given[section].get("policy_waits_share") == 0:
        wanted[section, "policy_waits_share"] = _WAITS_SHARE
    changed: dict[str, Any] = {}
    for path, value in wanted.items():
        inner = given
        for key in path[:-1]:
            inner = inner[key]
        if inner[path[-1]] != value:
            inner[path[-1]] = changed[".".join(path)] = value
    return (config_from_mapping(given, source="--init"), changed) if changed else (config, {})


def check_fits(parent: PolicySpec, spec: PolicySpec) -> None:
    """Refuse a policy that sees or does something else than what is to be trained.

    Raises:
        InputError: naming the first difference.
    """
    where = f"--init: {parent.name} {parent.version}"
    for what, theirs, ours in (
        ("observation fields", _fields(parent), _fields(spec)),
        ("actions", [(a.kind, a.size, a.label) for a in parent.actions], [(a.kind, a.size, a.label) for a in spec.actions]),
        ("action components", [(c.name, c.low, c.high) for c in parent.components], _components(spec)),
    ):
        if theirs == ours:
            continue
        if len(theirs) != len(ours):
            raise InputError(f"{where} has {len(theirs)} {what}, this experiment has {len(ours)}")
        i = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
        raise InputError(f"{where} has {what}[{i}] = {_shown(theirs[i])}, this experiment has {_shown(ours[i])}")


def _fields(spec: PolicySpec) -> list[tuple[Any, ...]]:
    return [(f.name, f.unit, f.dtype, *f.shape) for f in spec.observation_fields]


def _components(spec: PolicySpec) -> list[tuple[Any, ...]]:
    return [(c.name, c.low, c.high) for c in spec.components]


def _shown(entry: tuple[Any, ...]) -> str:
    return " ".join(str(part) for part in entry if part != "")


def weights_of(policy: Policy) -> Arrays:
    """A policy's weights under the names of the network that was exported, or {"q": …} of a table.

    What an export folds away is put back: biases that are all zero are left out, and the normaliser's variance is stored as its
    square root.

    Raises:
        InputError: no policy of ours.
    """
    if isinstance(policy, TablePolicy):
        return {"q": policy.q, **{f"edges.{name}": edges for name, edges in policy.discretiser.edges.items()}}
    assert isinstance(policy, NetworkPolicy)
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(policy.model).graph
    stored = {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    weights = {name: array for name, array in stored.items() if name.startswith(("head.", "encoder.", "normaliser."))}
    if "normaliser.mean" in stored:
        centred = [node.output[0] for node in graph.node if node.op_type == "Sub" and "normaliser.mean" in node.input]
        deviation = [node.input[1] for node in graph.node if node.op_type == "Div" and node.input[0] in centred]
        if len(deviation) != 1 or deviation[0] not in stored:
            raise InputError(f"--init: {policy.spec.name}: model.onnx holds no normaliser of this version")
        weights["normaliser.variance"] = np.square(stored[deviation[0]].astype(np.float64)) - _VARIANCE_FLOOR
        steps = policy.spec.provenance.get("env_steps")
        # Q-values are exported in units of reward, and learnt in those of the scale.
        weights[REWARD_SCALE] = np.array(float(policy.spec.provenance.get("reward_scale") or 1.0))
        weights["normaliser.count"] = np.array(int(steps) if isinstance(steps, int) else 1, np.int64)
    return weights


def completed(weights: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]], learnt: set[str]) -> Arrays:
    """Weights in the shapes of a network.

    Args:
        weights: of `weights_of`.
        wanted: name → the network's own array.
        learnt: names that must be there; others stay as they are where they are not.

    Raises:
        InputError: naming the first array that differs.
    """
    found = dict(wanted)
    unknown = sorted(set(weights) - set(wanted))
    if unknown:
        raise InputError(
            f"--init: the policy has {unknown[0]} {weights[unknown[0]].shape}, this configuration's network has none"
        )
    for name, own in wanted.items():
        given = weights.get(name)
        if given is None:
            if name.endswith(".bias"):
                found[name] = np.zeros_like(own)
            elif name in learnt:
                raise InputError(f"--init: the policy has no {name}, this configuration's network has {own.shape}")
            continue
        if given.shape != own.shape:
            raise InputError(f"--init: {name} is {given.shape} in the policy, {own.shape} in this configuration's network")
        found[name] = given.astype(own.dtype)
    return found


def parent_of(policy: Policy, path: Path) -> dict[str, Any]:
    """What a policy's provenance says of the one that it was trained from."""
    spec = policy.spec
    return {"name": spec.name, "version": spec.version, "path": str(path), "files": dict(spec.files)}
