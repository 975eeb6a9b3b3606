"""What a run recommends to deploy: its candidates, the choice, and the artifact in `deploy/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from scalepilot.errors import InputError
from scalepilot.evaluate.evaluation import LineupRow
from scalepilot.evaluate.lineup import gather, shipped_beside
from scalepilot.evaluate.missing_fields import worse_without
from scalepilot.evaluate.recommendation import Candidate, Recommendation, recommend
from scalepilot.learn.task import Task
from scalepilot.policy import NetworkPolicy, Policy, env_fields, load_policy, pack_policy
from scalepilot.policy.rules import Rule
from scalepilot.report.policy_list import renamed
from scalepilot.report.words.recommendation import reason
from scalepilot.runs.folder import RunFolder
from scalepilot.simulate import Executor
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.description import describe
from scalepilot_envs.registration import same_id

_ONLY_TRAINED = "Deploy: the trained policy. Rules are candidates on Autoscale-v0 alone."


def beside_trained(task: Task, folder: RunFolder, beside: Sequence[Path] = ()) -> list[Candidate]:
    """What could be deployed in place of the run's policy: what it began with, what is shipped, and what a user gives.

    Args:
        task: what was trained on.
        folder: of the run.
        beside: others to evaluate, as `compare` takes them.

    Raises:
        InputError: one of those cannot be loaded.
    """
    found: list[Candidate] = []
    if folder.init.exists():
        parent = load_policy(folder.init)
        found.append(Candidate(_label(parent.spec.name, task), "init", for_service(parent, task)))
    if task.scenario.traffic is not None:
        shipped = shipped_beside([candidate.policy for candidate in found])
        found += [Candidate(name, "shipped", for_service(policy, task)) for name, policy in shipped.items()]
    taken = {candidate.name for candidate in found} | {f"{task.config.name}-{task.config.algorithm}"[:64]}
    for row in given_beside(beside):
        for trained in row.trained:
            label = trained.name if trained.name not in taken else f"{trained.name} (beside)"
            found.append(Candidate(label, "given", for_service(trained.actor, task)))
    return found


def given_beside(paths: Sequence[Path]) -> tuple[LineupRow, ...]:
    """Policies that a user wants beside the run's, as `compare` takes them.

    Raises:
        InputError: one of them is a rule, or cannot be loaded.
    """
    given = gather([str(path) for path in paths])
    if given.rules:
        raise InputError(f"--beside: {given.rules[0]} is a rule; allowed: policies, and evaluation.baselines for rules")
    for problem in given.failed.values():
        raise InputError(f"--beside: {problem}")
    return given.rows


def _label(name: str, task: Task) -> str:
    """Of a policy that training began with: it may be of the same experiment."""
    return f"{name} (init)" if name == f"{task.config.name}-{task.config.algorithm}"[:64] else name


def for_service(policy: Policy, task: Task) -> Policy:
    """A policy described for the service of this experiment, whose limits and prices hold; it sees and does the same.

    Args:
        policy: made elsewhere.
        task: of the experiment.
    """
    params = task.description.params
    if not (isinstance(policy, NetworkPolicy) and isinstance(params, AutoscaleParams)):
        return policy
    if not same_id(policy.spec.env_id, task.description.env_id):
        return policy
    own = describe(params.seen_as(policy.spec.env_params))
    spec = replace(policy.spec, env_params=asdict(own.params), observation_fields=env_fields(own), signature=None)
    return NetworkPolicy(spec, policy.model)


def candidates(own: Policy, others: Sequence[Candidate], baselines: Sequence[Rule[Any]]) -> list[Candidate]:
    """Everything that could be deployed, the trained policy first; chance is nobody's choice."""
    rules = [Candidate(rule.spec.name, "rule", rule) for rule in baselines if rule.rule_name != "random"]
    return [Candidate(own.spec.name, "trained", own), *others, *rules]


def recommendation(task: Task, choices: Sequence[Candidate], executor: Executor) -> Recommendation | None:
    """The choice among candidates; None on other environments than Autoscale, where it is the trained policy.

    Args:
        task: of the run.
        choices: the trained policy first.
        executor: runs them.
    """
    if task.scenario.traffic is None:
        return None
    return recommend(task.scenario, choices, executor, bootstrap_samples=task.config.evaluation.bootstrap_samples)


def write_deploy(
    task: Task,
    folder: RunFolder,
    found: Recommendation | None,
    choices: Sequence[Candidate],
    told: Mapping[str, Any],
    own: dict[str, Any],
) -> dict[str, Any]:
    """Write the chosen policy as `deploy/`, with how it was evaluated and why it was chosen.

    Args:
        task: of the run.
        folder: of the run.
        found: the choice; None where there was none.
        choices: what was chosen from.
        told: what summary.json holds.
        own: the evaluation of the trained policy, as `evaluation_of`.

    Returns:
        The choice as plain data, as run.json and summary.json hold it.
    """
    choice, why = choices[0], _ONLY_TRAINED
    if found is not None:
        choice, why = next(c for c in choices if c.name == found.name), reason(found)
    packed = pack_policy(choice.policy)
    spec = packed.spec
    noted: dict[str, Any] = {"run": folder.run_id, "origin": choice.origin, "reason": why}
    if choice.origin not in ("trained", "rule"):
        # Whoever compares it anew means this experiment's workload, not the one that it was trained on.
        noted |= {"name": spec.name, "version": spec.version, "trained_with": spec.provenance.get("config")}
    provenance = {**spec.provenance, "config": task.config.to_mapping(), "deploy": noted}
    # Of what summary.json calls by its address, or tells from a policy of the same name, the artifact knows its own name alone.
    evaluation = own if choice.origin == "trained" else renamed(evaluation_of(told, choice, task), choice.name, spec.name)
    replace(packed, spec=replace(spec, provenance=provenance).with_evaluation(evaluation)).with_named_model().save(folder.deploy)
    return {"name": choice.name, "origin": choice.origin, "reason": why, **({} if found is None else found.to_mapping())}


def evaluation_of(found: Mapping[str, Any], choice: Candidate, task: Task) -> dict[str, Any]:
    """What a policy's own description says of its evaluation: who serves it has nothing else of the run.

    Args:
        found: what summary.json holds.
        choice: the policy, under its name there.
        task: of the run.
    """
    evaluation = {key: found[key] for key in ("workloads", "episodes", "policies", "roles")}
    if choice.origin != "rule" and (worse := worse_without(choice.policy, task.scenario)):
        evaluation["worse_without"] = worse
    evaluation["gap_closed"] = found.get("gap_closed", {}).get(choice.name, {})
    return evaluation
