"""The YAML door: what is allowed becomes a config, anything else one line that says what is."""

from __future__ import annotations

import json
import re
import runpy
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from scalepilot.config import (
    ALGORITHMS,
    EnvConfig,
    EvaluationConfig,
    ExperimentConfig,
    PPOConfig,
    ResourcesConfig,
    config_from_mapping,
    json_schema,
    load_config,
    with_trace,
)
from scalepilot.config.schema import described_keys, reference
from scalepilot.config.strict_yaml import parse_yaml
from scalepilot.errors import ConfigError
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.workloads import WORKLOADS, DiurnalWorkload, TraceWorkload, workload_from_mapping


def refusal(text, *overrides, tmp_path=None):
    """The one line with which a YAML text is refused."""

    def load():
        if tmp_path is None:
            return config_from_mapping(parse_yaml(text, "x.yaml"), overrides, source="x.yaml")
        path = tmp_path / "x.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, overrides)

    with pytest.raises(ConfigError) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    assert caught.value.exit_code == 2
    return message


def test_an_empty_file_is_the_defaults():
    assert config_from_mapping(parse_yaml("", "x")) == config_from_mapping({}) == ExperimentConfig()


def test_every_part_of_a_config_can_be_written_in_yaml():
    text = """
    name: mine
    seed: 7
    env:
      id: scalepilot/Autoscale-v0
      params: {max_replicas: 90, startup_seconds: 30, observe_clock: true}
      randomisation: {capacity_scale: [0.5, 2]}
    workload: {kind: trace, path: a.csv, peak_rps: 500}
    ppo: {lr: 1e-3, hidden: [32, 16], num_envs: 16, rollout_steps: 16, minibatch_size: 64}
    resources: {num_env_runners: 2, address: auto}
    evaluation: {test_seeds: [4, 5]}
    """
    config = config_from_mapping(parse_yaml(text, "x"))
    assert config.env.params == AutoscaleParams(max_replicas=90, startup_seconds=30, observe_clock=True)
    assert config.env.randomisation.capacity_scale == (0.5, 2)
    assert config.workload == TraceWorkload(path="a.csv", peak_rps=500)
    assert config.ppo.lr == 0.001
    assert config.ppo.hidden == (32, 16)
    assert config.evaluation.test_seeds == (4, 5)


def test_a_config_survives_the_way_through_its_own_yaml():
    config = config_from_mapping({"name": "a", "ppo": {"hidden": [8]}, "workload": {"kind": "trace", "path": "b.csv"}})
    assert config_from_mapping(parse_yaml(yaml.safe_dump(config.to_mapping()), "x")) == config


MIXTURE = {
    "kind": "mixture",
    "components": [
        {"weight": 0.7, "workload": {"kind": "diurnal", "events": [{"start_hours": 3, "factor": 0.5}]}},
        {"weight": 0.3, "workload": {"kind": "phases", "rounds": 9, "phases": [{"low": 2, "high": 2}]}},
    ],
}


@pytest.mark.parametrize("kind", WORKLOADS)
def test_every_kind_of_workload_can_be_configured_and_survives_its_own_yaml(kind):
    values = MIXTURE if kind == "mixture" else {"kind": kind} | ({"path": "a.csv"} if kind == "trace" else {})
    config = config_from_mapping({"workload": values})
    assert type(config.workload) is WORKLOADS[kind]
    assert config.workload == workload_from_mapping(values)
    assert config_from_mapping(parse_yaml(config.to_yaml(), "x")) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 1", "x.yaml: learning_rate: unknown key; allowed: name, algorithm, "),
        ("ppo: {l_r: 1}", "x.yaml: ppo.l_r: unknown key; allowed: total_env_steps, "),
        ("ppo: {gama: 0.9}", "did you mean gamma?"),
        ("env: {params: {max_replica: 3}}", "x.yaml: env.params.max_replica: unknown key; allowed: interval_seconds, "),
        ("env: {params: {max_replica: 3}}", "did you mean max_replicas?"),
        ("env: {randomisation: {capacity: [1, 2]}}", "x.yaml: env.randomisation.capacity: unknown key"),
        ("workload: {kind: diurnal, day: 3}", "x.yaml: workload.day: unknown key; allowed: kind, days, "),
        ("workload: {kind: diurnal, day: 3}", "did you mean days?"),
        (
            "workload: {kind: trace, path: a.csv, days: 3}",
            "workload.days: unknown key; allowed: kind, path, peak_rps, gaps",
        ),
        ("workload: {kind: phases, phases: [{sconds: 3}]}", "workload.phases.0.sconds: unknown key; allowed: kind, low, "),
        (
            "workload: {kind: mixture, components: [{workload: {kind: diurnal, day: 3}}]}",
            "x.yaml: workload.components.0.workload.day: unknown key; allowed: kind, days, ",
        ),
        ("workload: {kind: mixture, components: [{wieght: 3}]}", "did you mean weight?"),
        ("evaluation: {window_step: 3}", "did you mean window_steps?"),
        ("resources: {gpus: 1}", "x.yaml: resources.gpus: unknown key"),
    ],
)
def test_an_unknown_key_is_named_with_the_allowed_ones_and_the_nearest(text, message):
    assert message in refusal(text)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("abc", "ppo.lr: 'abc' is not allowed; "),
        ("-1", "ppo.lr: -1.0 is not allowed; allowed: above 0 to 1"),
        ("0", "ppo.lr: 0.0 is not allowed; allowed: above 0 to 1"),
        (".nan", "ppo.lr: nan is not allowed; allowed: above 0 to 1"),
        (".inf", "ppo.lr: inf is not allowed; allowed: above 0 to 1"),
        ("1e400", "ppo.lr: inf is not allowed"),
        ("[1]", "ppo.lr: [1] is not allowed; "),
        ("null", "ppo.lr: None is not allowed; "),
        ("true", "ppo.lr: True is not allowed"),
        ("\"__import__('os').system('id')\"", "ppo.lr: \"__import__('os').system('id')\" is not allowed"),
    ],
)
def test_a_number_that_is_none_or_out_of_range_is_named_with_its_range(value, message):
    assert message in refusal(f"ppo: {{lr: {value}}}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env: {id: Autoscal-v0}", "env.id: 'Autoscal-v0' is not allowed; allowed: Autoscale-v0, "),
        ("env: {id: os.system}", "env.id: 'os.system' is not allowed; allowed: Autoscale-v0"),
        ("env: {id: 'my.module:Env'}", "env.id: 'my.module:Env' is not allowed"),
        ("algorithm: pppo", "algorithm: 'pppo' is not allowed; allowed: ppo, dqn, "),
        ("algorithm: ray.rllib.algorithms.ppo.PPO", "algorithm: 'ray.rllib.algorithms.ppo.PPO' is not allowed; allowed: ppo"),
        ("engine: rlib", "engine: 'rlib' is not allowed; allowed: rllib, rllib-stock; did you mean rllib?"),
        ("{algorithm: dqn, engine: rllib-stock}", "engine: rllib-stock is not allowed for algorithm dqn; allowed: rllib"),
        ("workload: {kind: diurnl}", "workload.kind: 'diurnl' is not allowed; allowed: steady, "),
        (
            "workload: {kind: mixture, components: [{workload: {kind: mixture}}]}",
            "workload.components.0.workload.kind: 'mixture' is not allowed; allowed: steady, ",
        ),
        ("workload: {days: 3}", "workload.kind: is missing; allowed: steady, "),
        ("workload: 7", "workload"),
    ],
)
def test_an_unknown_environment_algorithm_or_workload_is_named_with_the_allowed_ones(text, message):
    assert f"x.yaml: {message}" in refusal(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ppo: {num_envs: 4, rollout_steps: 8, minibatch_size: 64}", "ppo.minibatch_size: 64 is larger than the batch"),
        (
            "env: {params: {min_replicas: 10, max_replicas: 5}}",
            "env.params.max_replicas: 5 is below min_replicas 10",
        ),
        (
            "env: {params: {interval_seconds: 0}}",
            "env.params.interval_seconds: 0.0 is not allowed; allowed: finite",
        ),
        ("env: {params: {max_replicas: 'import os'}}", "env.params.max_replicas: 'import os' is not allowed"),
        ("env: {params: {max_replicas: 5.5}}", "env.params.max_replicas: 5.5 is not allowed"),
        ("env: {episode_steps: 0}", "env.episode_steps: 0 is not allowed; allowed: from 1"),
        ("env: {randomisation: {startup_scale: [2, 1]}}", "env.randomisation.startup_scale: [2.0, 1.0] is not allowed"),
        ("env: {randomisation: {startup_scale: [0, 1]}}", "env.randomisation.startup_scale: [0.0, 1.0] is not allowed"),
        ("ppo: {gamma: 1.5}", "ppo.gamma: 1.5 is not allowed; allowed: from 0 to 1"),
        ("ppo: {clip_final_share: 2}", "ppo.clip_final_share: 2.0 is not allowed; allowed: from 0 to 1"),
        ("ppo: {target_kl: 0}", "ppo.target_kl: 0.0 is not allowed; allowed: above 0"),
        ("ppo: {hidden: []}", "ppo.hidden: is empty; allowed: at least one layer"),
        ("ppo: {hidden: [0]}", "ppo.hidden.0: 0 is not allowed"),
        ("ppo: {num_envs: 64}\nresources: {num_env_runners: 3}", "ppo.num_envs: 64 cannot be shared by 3 env runners"),
        (
            "ppo: {num_envs: 96, envs_per_input: 8}\nresources: {num_learners: 5}",
            "ppo.num_envs: 96 cannot be shared by 1 env runners and 5 learners",
        ),
        (
            "ppo: {num_envs: 96, minibatch_size: 512}\nresources: {num_learners: 3}",
            "ppo.minibatch_size: 512 cannot be shared by 3 learners; allowed: its multiples",
        ),
        (
            "algorithm: dqn\ndqn: {num_envs: 6, batch_size: 66, buffer_size: 100}\nresources: {num_learners: 3}",
            "dqn.buffer_size: 100 cannot be shared by 3 learners",
        ),
        ("resources: {device: gpu}", "resources.device: 'gpu' is not allowed; allowed: auto, cuda, mps, cpu"),
        (
            "resources: {device: cpu, num_gpus_per_learner: 1}",
            "resources.num_gpus_per_learner: 1 does not go with device cpu; allowed: 0",
        ),
        ("resources: {device: mps, num_learners: 2}", "resources.num_learners: 2 does not go with device mps; allowed: 0 or 1"),
        ("resources: {env_timeout_seconds: 0}", "resources.env_timeout_seconds: 0.0 is not allowed; allowed: above 0"),
        ("resources: {num_env_runners: -1}", "resources.num_env_runners: -1 is not allowed; allowed: from 0"),
        ("seed: -1", "seed: -1 is not allowed; allowed: from 0"),
        ("seed: 1.5", "seed: 1.5 is not allowed"),
        ("name: ../../etc/passwd", "name: '../../etc/passwd' is not allowed; allowed: 1–64 letters"),
        ("name: ''", "name: '' is not allowed"),
        ("evaluation: {test_seeds: []}", "evaluation.test_seeds: is empty; allowed: at least one seed"),
        ("evaluation: {test_seeds: [-1]}", "evaluation.test_seeds.0: -1 is not allowed"),
        ("workload: {kind: trace, path: ''}", "workload.path: is empty; allowed: a CSV file"),
        (
            "workload: {kind: trace, path: a.csv, peak_rps: -1}",
            "workload.peak_rps: -1.0 is not allowed; allowed: above 0",
        ),
        ("workload: {kind: trace, path: a.csv, gaps: hide}", "workload.gaps: 'hide' is not allowed"),
        ("workload: {kind: diurnal, high_rps: 10, low_rps: 20}", "workload.high_rps: 10.0 is not allowed; allowed: from low_rps"),
        ("workload: {kind: diurnal, days: .nan}", "workload.days: nan is not allowed"),
        ("workload: {kind: spike, num_steps: 1}", "workload.num_steps: 1 is not allowed; allowed: integers from 2"),
        ("workload: {kind: spike, rise_steps: true}", "workload.rise_steps: True is not allowed"),
        ("workload: {kind: sinusoidal, cycles: [{share: 0}]}", "workload.cycles.0.share: 0.0 is not allowed; allowed: above 0"),
        (
            "workload: {kind: mixture, components: [{workload: {kind: diurnal, days: -3}}]}",
            "workload.components.0.workload.days: -3.0 is not allowed; allowed: from 0",
        ),
    ],
)
def test_values_that_do_not_fit_each_other_or_their_range_are_named(text, message):
    assert refusal(text).startswith(f"x.yaml: {message}")


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:os.system ['id']",
        "name: !!python/name:os.system",
        "!!python/object:collections.OrderedDict {}",
        "name: !custom x",
        "a: &a [x]\nname: *a",
        "a: &a {b: 1}\nppo:\n  <<: *a",
    ],
)
def test_yaml_that_could_run_code_or_repeat_itself_is_refused_with_its_line(text):
    message = refusal(text)
    assert message.startswith(f"x.yaml:{len(text.splitlines())}: ")
    assert message.endswith("allowed: plain YAML without tags and aliases")


def test_a_billion_laughs_are_refused_at_the_first(tmp_path):
    laughs = [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)]
    text = "\n".join(['a: &a ["lol"]', *laughs])
    assert "x.yaml:2: aliases (*name) are not allowed" in refusal(text, tmp_path=tmp_path)


def test_a_file_of_ten_megabytes_is_refused_before_it_is_read(tmp_path):
    assert "allowed: up to 1000000" in refusal("# " + "x" * 10_000_000, tmp_path=tmp_path)


def test_too_many_values_and_too_deep_a_nesting_are_refused():
    assert "more than 10000 values" in refusal("ppo: [" + "1," * 20_000 + "]")
    assert "nested more than 20 deep" in refusal("[" * 5_000)
    assert "nested more than 20 deep" in refusal("{a: " * 100_000)


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\t- x", "name: 'open", "%YAML 9", "name: a\0b"])
def test_text_that_is_no_yaml_is_refused(text):
    assert refusal(text).startswith("x.yaml")


def test_a_key_given_twice_is_refused():
    assert "x.yaml:2: key 'seed' is given twice" in refusal("seed: 1\nseed: 2")


@pytest.mark.parametrize("text", ["[1, 2]", "7", "just text"])
def test_a_file_that_is_no_mapping_is_refused(text):
    assert "allowed: keys and values" in refusal(text)


@pytest.mark.parametrize("text", ["1: 2", "? [a, b]\n: c", "ppo: {1: 2}", "null: 1"])
def test_keys_that_are_no_names_are_refused(text):
    assert refusal(text).startswith("x.yaml")


def test_a_file_that_is_absent_a_folder_or_not_text_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(tmp_path / "binary.yaml")


def test_settings_override_the_file_and_make_sections_that_are_not_there():
    base = {"ppo": {"lr": 0.1, "gamma": 0.9}}
    config = config_from_mapping(base, ["ppo.lr=3e-4", "env.params.max_replicas=7", "ppo.hidden=[8, 8]", "name=b", "seed = 3"])
    assert (config.ppo.lr, config.ppo.gamma, config.ppo.hidden) == (3e-4, 0.9, (8, 8))
    assert (config.env.params.max_replicas, config.name, config.seed) == (7, "b", 3)
    assert base == {"ppo": {"lr": 0.1, "gamma": 0.9}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ppo.lr", "--set ppo.lr: allowed: key=value, such as ppo.lr=3e-4"),
        ("=1", "--set =1: allowed: key=value"),
        ("seed.x=1", "--set seed.x=1: seed is a value, not a section"),
        ("ppo.lr=abc", "ppo.lr: 'abc' is not allowed"),
        ("ppo.lrr=1", "did you mean lr?"),
        ("ppo.lr=!!python/name:os.system", "--set ppo.lr"),
        ("ppo.lr=[", "--set ppo.lr"),
        ("workload.days=3", "workload.kind: is missing; allowed: steady, "),
    ],
)
def test_an_unfit_setting_is_refused_in_one_line(override, message):
    assert message in refusal("seed: 1", override)


def test_a_trace_replaces_the_whole_workload_and_is_scaled_to_the_protocols_peak():
    config = config_from_mapping({"workload": {"kind": "diurnal", "days": 3}})
    assert with_trace(config, Path("a.csv")).workload == TraceWorkload(path="a.csv", peak_rps=500.0)
    assert with_trace(config, Path("a.csv"), 80.0).workload == TraceWorkload(path="a.csv", peak_rps=80.0)
    assert with_trace(config, Path("a.csv"), 0.0).workload == TraceWorkload(path="a.csv", peak_rps=None)
    with pytest.raises(ConfigError, match="--peak-rps: "):
        with_trace(config, Path("a.csv"), -1.0)


def test_the_json_schema_knows_every_key_and_refuses_others():
    schema = json.loads(json.dumps(json_schema()))
    definitions = schema["$defs"]
    sections = (EnvConfig, PPOConfig, ResourcesConfig, EvaluationConfig, AutoscaleParams, *WORKLOADS.values())
    for section in sections:
        assert set(definitions[section.__name__]["properties"]) == {f.name for f in fields(section)}
        assert definitions[section.__name__]["additionalProperties"] is False
    assert set(schema["properties"]) == {f.name for f in fields(ExperimentConfig)}
    assert schema["additionalProperties"] is False


def test_configs_are_frozen_and_their_derived_values_follow_their_fields():
    config = ExperimentConfig()
    with pytest.raises(FrozenInstanceError):
        config.seed = 1
    ppo = replace(config.ppo, num_envs=16, rollout_steps=30, minibatch_size=100, total_env_steps=1000)
    assert (ppo.batch_size, ppo.num_iterations) == (480, 3)


def test_every_key_is_described_in_its_docstring():
    for section in (ExperimentConfig, EnvConfig, PPOConfig, ResourcesConfig, EvaluationConfig, AutoscaleParams, DiurnalWorkload):
        for f in fields(section):
            assert f.name == "kind" or described_keys(section)[1].get(f.name), f"{section.__name__}.{f.name}"


def parts_of(value: dict[str, Any]) -> list[dict[str, Any]]:
    """A value's schema, with those that it is made of."""
    parts = [part for key in ("anyOf", "prefixItems") for part in value.get(key, [])]
    return [value, *(part for each in parts for part in parts_of(each))]


def test_every_key_is_described_and_the_documentation_is_that_of_the_code(repo: Path):
    # `make docs` runs it.
    schemas = runpy.run_path(str(repo / "docs" / "develop" / "configuration.py"))["schemas"]()
    sections: dict[str, Any] = {}
    for schema in schemas.values():
        sections |= {schema["title"] if sections else "": schema, **schema.get("$defs", {})}
    keys = {f"{name}.{key}": value for name, section in sections.items() for key, value in section["properties"].items()}
    assert len(keys) > 200
    assert not [name for name, value in keys.items() if not value.get("description")]
    assert keys["PPOConfig.gamma"]["minimum"] == 0
    assert keys["PPOConfig.gamma"]["maximum"] == 1
    assert keys["DQNConfig.tau"]["exclusiveMinimum"] == 0
    assert keys[".algorithm"]["enum"] == list(ALGORITHMS)
    numbers = [(n, part) for n, value in keys.items() for part in parts_of(value) if part.get("type") in ("integer", "number")]
    # Of a key that may be any, and of a return that may be anything.
    unbounded = {"RangeConfig.low", "RangeConfig.high", "TaskConfig.success_return"}
    assert {name for name, part in numbers if not {"minimum", "exclusiveMinimum"} & {*part}} == unbounded
    assert (repo / "docs" / "configuration.md").read_text(encoding="utf-8") == reference(schemas)


def numbers_of_the_platform() -> list[tuple[str, str, dict[str, Any]]]:
    """(section, key, schema) of every number in the platform's own sections."""
    schema = json_schema()
    sections = {"": schema, **{name: s for name, s in schema["$defs"].items() if name.endswith("Config")}}
    found = []
    for name, section in sections.items():
        for key, value in section["properties"].items():
            for each in value.get("anyOf", [value]):
                if each.get("type") in ("integer", "number"):
                    found.append((name, key, each))
    return found


@pytest.mark.parametrize(("section", "key", "number"), numbers_of_the_platform())
def test_every_number_has_bounds_which_are_refused_when_crossed(section: str, key: str, number: dict[str, Any]):
    where = {"PPOConfig": "ppo", "DQNConfig": "dqn", "TabularConfig": "tabular"}.get(
        section, section.removesuffix("Config").lower()
    )
    where = {"env": "env", "otherenv": "env"}.get(where, where)
    low = number.get("minimum", number.get("exclusiveMinimum"))
    beyond = [number["maximum"] * 2 + 1, low - 1]
    for value in beyond:
        text = f"{where}.{key}" if where else key
        values = {key: int(value)} if not where else {where: {key: value if number["type"] == "number" else int(value)}}
        with pytest.raises(ConfigError, match=re.escape(text)):
            config_from_mapping(values)
