"""Who takes part in a comparison: policies from folders, training seeds of one experiment as one row, and rules by name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from scalepilot.config import AUTOSCALE, ExperimentConfig, config_from_mapping
from scalepilot.errors import ArtifactError, InputError, did_you_mean
from scalepilot.evaluate.baselines import BASELINES, is_rule_name
from scalepilot.evaluate.evaluation import OPTIMUM, LineupRow, Trained, trained_steps
from scalepilot.files.env_modules import find_checked
from scalepilot.policy import Policy, find_policy_folder, load_policy, located, shipped_names
from scalepilot.policy.rules import RULES, LookAhead
from scalepilot.policy.shipped import SCHEME
from scalepilot.runs.folder import find_modules
from scalepilot.simulate import Scenario
from scalepilot_envs.autoscale.params import SERVICE_PARAMS, VIEW_PARAMS
from scalepilot_envs.description import params_from_mapping
from scalepilot_envs.registration import find_env, same_id

_TAKEN = {*BASELINES, OPTIMUM, LookAhead.name}
# Parameters that say how learning was rewarded, not what is served or how it is evaluated.
_OF_TRAINING_ALONE = {"reward_per_currency"}
# What may differ between two runs of one experiment.
_INCIDENTAL = ("seed", "output", "resources", "checkpoints", "tracking")
# Of `evaluation`: what happens after training, which made the policy neither better nor worse.
_OF_JUDGING_ALONE = ("test_seeds", "test_episodes", "baselines", "tuning_evaluations", "bootstrap_samples", "optimum", "videos")


@dataclass(frozen=True)
class Gathered:
    """What the arguments of a comparison stand for.

    Attributes:
        rows: one a policy, or several training seeds of it.
        rules: names of rules to take part as policies.
        failed: folder → why its policy cannot be used.
        folders: (row, folder) of every policy that is part of one.
    """

    rows: tuple[LineupRow, ...]
    rules: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    folders: tuple[tuple[str, Path], ...] = ()

    @property
    def configs(self) -> list[ExperimentConfig]:
        """The experiments behind the policies, each once; their environments must be here."""
        return _configs(self.policies)

    @property
    def policies(self) -> list[Policy]:
        """Every policy behind the rows."""
        return [t.actor for row in self.rows for t in row.trained]

    def other_parameters(self, scenarios: Sequence[Scenario]) -> list[str]:
        """One line a row whose policy was made for other parameters; see `other_parameters`."""
        return other_parameters([(row.name, row.trained[0].actor) for row in self.rows], scenarios)

    def check_one_environment(self) -> None:
        """Refuse policies of different environments, or of one that is not here.

        Raises:
            InputError: naming two that cannot be compared, or the module that is missing.
        """
        policies = self.policies
        for policy in policies:
            find_checked(policy.spec.env_id, policy.spec.env_options.get("wrappers"))
        for other in policies[1:]:
            a, b = policies[0].spec, other.spec
            # Earlier versions stored no module in front.
            if not same_id(a.env_id, b.env_id):
                raise InputError(f"policies: {a.name} is for {a.env_id}, {b.name} for {b.env_id}; allowed: one environment")


def gather(arguments: Sequence[str]) -> Gathered:
    """Load what the arguments of a comparison name.

    Args:
        arguments: names of rules; policy folders, run folders, folders of runs, and patterns of them.

    Raises:
        InputError: nothing is there under a name, or it is given twice.
    """
    rules = [text for text in arguments if is_rule_name(text)]
    paths = [path for text in arguments if not is_rule_name(text) for path in _found(text)]
    for given in (rules, paths):
        twice = next((x for i, x in enumerate(given) if x in given[:i]), None)
        if twice is not None:
            raise InputError(f"POLICY: {twice} is given twice; allowed: each once")
    failed: dict[str, str] = {}
    loaded: list[Policy] = []
    used: list[Path] = []
    for path in paths:
        try:
            find_modules(path)
            loaded.append(load_policy(path))
            used.append(path)
        except ArtifactError as error:
            failed[str(path)] = str(error)
    rows = tuple(_rows(loaded))
    from_folder = {id(policy): path for policy, path in zip(loaded, used, strict=True)}
    folders = tuple((row.name, from_folder[id(t.actor)]) for row in rows for t in row.trained)
    return Gathered(rows, tuple(rules), failed, folders)


def other_parameters(policies: Sequence[tuple[str, Policy]], scenarios: Sequence[Scenario]) -> list[str]:
    """What a reader must know of policies that were made for other parameters than they are evaluated with.

    Args:
        policies: (name, policy).
        scenarios: where.

    Returns:
        One line a policy and set of parameters that differ.
    """
    lines = []
    for name, policy in policies:
        told_of: dict[str, list[str]] = {}
        for scenario in scenarios:
            params = scenario.env.params
            if not is_dataclass(params) or isinstance(params, type):
                continue
            here, own = asdict(params), asdict(params_from_mapping(type(params), policy.spec.env_params))
            # What is shown to it, a policy is made for.
            told_of_it = SERVICE_PARAMS if own.get("observe_service") else ()
            differ = [k for k in own if own[k] != here[k] and k not in (*_OF_TRAINING_ALONE, *VIEW_PARAMS, *told_of_it)]
            if differ:
                told = "; ".join(f"{key} {_value(own[key])}, here {_value(here[key])}" for key in differ)
                told_of.setdefault(told, []).append(scenario.name)
        lines += [f"{name} was made for another service than that of {', '.join(on)}: {told}" for told, on in told_of.items()]
    return lines


def shipped_beside(given: Iterable[Policy], names: Sequence[str] | None = None) -> dict[str, Policy]:
    """Name → policy that comes with Scalepilot, but for those that take part anyway.

    Args:
        given: who takes part.
        names: which ones; None for all.
    """
    files = [policy.spec.files for policy in given]
    wanted = shipped_names() if names is None else [name for name in shipped_names() if name in names]
    shipped = {name: load_policy(f"{SCHEME}{name}") for name in wanted}
    return {name: policy for name, policy in shipped.items() if policy.spec.files not in files}


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _found(text: str) -> list[Path]:
    """Policies under a path or pattern; a folder that holds none itself is searched for runs."""
    if any(character in text for character in "*?["):
        path = Path(text)
        paths = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        if not paths:
            raise InputError(f"POLICY: {text} matches nothing; allowed: folders of policies or runs, or a rule's name")
        # Beside runs there may be files and folders of other kinds; a run without its policy is worth a word.
        return [path for path in paths if path.is_dir()]
    path = located(text)
    if not path.exists():
        hint = did_you_mean(text.partition(":")[0], (*RULES, *BASELINES))
        raise InputError(f"POLICY: {text}: no such folder; allowed: policy and run folders, or a rule's name{hint}")
    try:
        find_policy_folder(path)
    except ArtifactError:
        runs = sorted(folder.parent for folder in path.rglob("policy") if (folder / "policy.json").is_file())
        return runs or [path]
    return [path]


def _rows(policies: Sequence[Policy]) -> list[LineupRow]:
    """Policies of the same experiment as one row, the others each for itself, in the order given."""
    groups: list[list[Policy]] = []
    for policy in policies:
        same = next((g for g in groups if _belongs(policy, g)), None)
        if same is None:
            groups.append([policy])
        else:
            same.append(policy)
    labels = _labels(groups)
    rows = []
    for label, group in zip(labels, groups, strict=True):
        if len(group) == 1:
            rows.append(LineupRow.single(label, "policy", group[0]))
            continue
        group.sort(key=lambda p: int(p.spec.provenance["seed"]))
        seeds = [int(p.spec.provenance["seed"]) for p in group]
        detail = f"{group[0].spec.provenance['algorithm']}, seeds {', '.join(map(str, seeds))}{trained_steps(group[0])}"
        members = tuple(Trained(f"{label}·{seed}", seed, p) for seed, p in zip(seeds, group, strict=True))
        rows.append(LineupRow(label, "policy", detail, members))
    return rows


def _belongs(policy: Policy, group: Sequence[Policy]) -> bool:
    """Whether a policy differs from those of a group in its training seed, and in that alone."""
    mine, theirs = _sameness(policy), _sameness(group[0])
    seeds = [p.spec.provenance.get("seed") for p in group]
    return mine is not None and mine == theirs and policy.spec.provenance["seed"] not in seeds


def _sameness(policy: Policy) -> str | None:
    """Equal for policies that differ in their training seed alone; None where the provenance does not tell."""
    spec = policy.spec
    config, seed = spec.provenance.get("config"), spec.provenance.get("seed")
    if not isinstance(config, dict) or not isinstance(seed, int):
        return None
    try:
        # Keys that came after a run was made have the defaults that it was made with.
        config = config_from_mapping(config).to_mapping()
    except InputError:
        return None
    kept = {key: value for key, value in config.items() if key not in _INCIDENTAL}
    kept["evaluation"] = {key: value for key, value in config["evaluation"].items() if key not in _OF_JUDGING_ALONE}
    described = [spec.name, spec.kind, spec.env_id, spec.env_params, spec.provenance.get("algorithm"), kept]
    return json.dumps(described, sort_keys=True, default=str)


def _labels(groups: Sequence[Sequence[Policy]]) -> list[str]:
    """Row labels that differ: the name, with the training seed or version where a name comes twice, numbered if still equal."""
    names = [group[0].spec.name for group in groups]
    marks = [str(group[0].spec.provenance.get("seed", group[0].spec.version)) for group in groups]
    seeded = [name if names.count(name) == 1 else f"{name}·{mark}" for name, mark in zip(names, marks, strict=True)]
    seeded = [f"{label} (policy)" if label in _TAKEN else label for label in seeded]
    earlier = [seeded[:i].count(label) for i, label in enumerate(seeded)]
    return [label if not count else f"{label}#{count + 1}" for label, count in zip(seeded, earlier, strict=True)]


def _configs(policies: Sequence[Policy]) -> list[ExperimentConfig]:
    """Experiments behind policies, those of one workload and environment once."""
    found: dict[str, ExperimentConfig] = {}
    for policy in policies:
        spec = policy.spec
        stored: Any = spec.provenance.get("config")
        env = stored.get("env", {}) if isinstance(stored, dict) else None
        own = env.get("id", AUTOSCALE) if isinstance(env, dict) else None
        if own is None or not same_id(find_env(own).env_id, find_env(spec.env_id).env_id):
            if find_env(spec.env_id).describe().judged_by is not None:
                continue
            # A return needs nothing but the environment, which every policy names.
            options = dict(spec.env_options)
            wrappers = options.pop("wrappers", [])
            stored = {"env": {"id": spec.env_id, "params": spec.env_params, "options": options, "wrappers": wrappers}}
        config = config_from_mapping(stored, source=f"{spec.name}: provenance.config")
        key = json.dumps([config.to_mapping()[part] for part in ("workload", "env")], sort_keys=True)
        found.setdefault(key, config)
    return list(found.values())
