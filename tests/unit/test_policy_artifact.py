"""The policy folder: what is saved is what is loaded, and anything else is refused in one line."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, load_model_from_string, numpy_helper

from scalepilot.errors import ArtifactError, ObservationError
from scalepilot.files.atomic import _swapped
from scalepilot.policy import (
    NetworkPolicy,
    check_same_fields,
    find_policy_folder,
    load_policy,
    observation_row,
    read_spec,
    save_policy,
)
from scalepilot.policy.rules import Hpa, HpaParameters, Static, StaticParameters, make_rule, rules_for
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.description import describe
from scalepilot_envs.registration import find_env

PARAMS = AutoscaleParams()
AUTOSCALE_RULES = rules_for(describe(PARAMS))


def refusal(folder):
    """The one line with which a folder is refused."""
    with pytest.raises(ArtifactError) as caught:
        load_policy(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) <= 600
    return message


def edit_spec(folder, change):
    """Change policy.json in place."""
    spec = json.loads((folder / "policy.json").read_text())
    change(spec)
    (folder / "policy.json").write_text(json.dumps(spec))


def put_model(folder, model):
    """Another model, its hash entered rightly: only its contents are wrong."""
    (folder / "model.onnx").write_bytes(model)
    edit_spec(folder, lambda spec: spec["files"].update({"model.onnx": hashlib.sha256(model).hexdigest()}))


def observations(count=50):
    spread = np.array([f.high if f.high < 1e5 else 500.0 for f in make_rule("hpa", PARAMS).spec.observation_fields])
    return (np.random.default_rng(0).random((count, len(spread))) * spread).astype(np.float32)


def test_a_network_is_loaded_as_it_was_saved(tmp_path, tiny_network):
    saved = tiny_network(evaluation={"J": 1.5}, provenance={"algorithm": "ppo", "seed": 3})
    written = save_policy(saved, tmp_path / "p")
    loaded = load_policy(tmp_path / "p")
    assert loaded.spec == written == replace(saved.spec, files=written.files)
    assert loaded.model == saved.model
    np.testing.assert_array_equal(loaded.act(observations())[0].scores, saved.act(observations())[0].scores)
    np.testing.assert_array_equal(loaded.act(observations())[0].desired_replicas, saved.act(observations())[0].desired_replicas)


@pytest.mark.parametrize("name", AUTOSCALE_RULES)
def test_a_rule_is_loaded_as_it_was_saved(tmp_path, name):
    saved = make_rule(name, AutoscaleParams(max_replicas=33, startup_seconds=45.0), name="mine", version="7", provenance={"x": 1})
    save_policy(saved, tmp_path / "p")
    loaded = load_policy(tmp_path / "p")
    assert loaded.spec == saved.spec
    assert loaded.parameters == saved.parameters
    np.testing.assert_array_equal(loaded.act(observations())[0].desired_replicas, saved.act(observations())[0].desired_replicas)


def test_the_same_policy_is_the_same_bytes(tmp_path, tiny_network):
    for name in ("a", "b"):
        save_policy(tiny_network(), tmp_path / name)
    for file in ("policy.json", "model.onnx"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_policy_of_a_run_folder_is_found(tmp_path, tiny_network):
    save_policy(tiny_network(), tmp_path / "run" / "policy")
    assert find_policy_folder(tmp_path / "run") == tmp_path / "run" / "policy"
    assert load_policy(tmp_path / "run").spec.name == "tiny"


def test_a_folder_that_is_none_says_what_is_allowed(tmp_path):
    assert refusal(tmp_path / "absent").endswith("no such folder")
    assert "holds no policy.json; allowed: a policy folder, or a run folder" in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_description_cut_off_is_refused(tiny_artifact, share):
    path = tiny_artifact / "policy.json"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "policy.json: is not JSON, or is cut off" in refusal(tiny_artifact)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_model_cut_off_is_refused_by_its_hash_and_again_by_its_contents(tiny_artifact, share):
    path = tiny_artifact / "model.onnx"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "differs from" in refusal(tiny_artifact)
    put_model(tiny_artifact, path.read_bytes())
    assert "model.onnx" in refusal(tiny_artifact)


def test_a_changed_byte_is_refused_by_the_hash(tiny_artifact):
    path = tiny_artifact / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert refusal(tiny_artifact).endswith("the file was changed or cut off")


class Trap:
    """Unpickling this leaves a trace."""

    def __reduce__(self):
        return os.mkdir, (os.environ["SCALEPILOT_TRAP"],)


@pytest.mark.parametrize("where", ["beside", "as the model", "as the description", "listed"])
def test_a_pickle_inside_is_refused_and_never_opened(tiny_artifact, tmp_path, monkeypatch, where):
    trap = tmp_path / "sprung"
    monkeypatch.setenv("SCALEPILOT_TRAP", str(trap))
    bomb = pickle.dumps(Trap())
    if where == "beside":
        (tiny_artifact / "policy.pkl").write_bytes(bomb)
    elif where == "as the model":
        put_model(tiny_artifact, bomb)
    elif where == "as the description":
        (tiny_artifact / "policy.json").write_bytes(bomb)
    else:
        (tiny_artifact / "extra.pkl").write_bytes(bomb)
        edit_spec(tiny_artifact, lambda s: s["files"].update({"extra.pkl": hashlib.sha256(bomb).hexdigest()}))
    refusal(tiny_artifact)
    assert not trap.exists()
    pickle.loads(bomb)
    assert trap.exists()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "sub/model.onnx", "..", ""])
def test_a_listed_file_outside_the_folder_is_refused(tiny_artifact, name):
    data = b"not yours"
    (tiny_artifact.parent / "outside").write_bytes(data)
    edit_spec(tiny_artifact, lambda s: s["files"].update({name: hashlib.sha256(data).hexdigest()}))
    assert "is listed in policy.json but missing" in refusal(tiny_artifact)


def test_a_link_out_of_the_folder_is_refused(tiny_artifact, tmp_path):
    model = tiny_artifact / "model.onnx"
    model.rename(tmp_path / "elsewhere.onnx")
    model.symlink_to(tmp_path / "elsewhere.onnx")
    assert "is listed in policy.json but missing" in refusal(tiny_artifact)


def network_of(nodes, width=21, outputs=8, initializers=(), domains=("",), **graph):
    """A model with given nodes between `observation` and `scores`."""
    body = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", outputs])],
        list(initializers),
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid(d, 17) for d in domains], ir_version=9, **graph)
    return model.SerializeToString()


def weights(width=21, outputs=8):
    return numpy_helper.from_array(np.zeros((width, outputs), np.float32), "w")


MATMUL = helper.make_node("MatMul", ["observation", "w"], ["scores"])


def loop_model():
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["again"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("MatMul", ["observation", "w"], ["first"]),
        helper.make_node("Loop", ["", "true", "first"], ["scores"], body=body),
    ]
    return network_of(nodes, initializers=[weights(), numpy_helper.from_array(np.array(True), "true")])


def function_model():
    """A loop inside a model-local function, called like any other operator."""
    inner = load_model_from_string(loop_model()).graph.node[1]
    function = helper.make_function("", "Quiet", ["true", "first"], ["scores"], [inner], [helper.make_opsetid("", 17)])
    nodes = [
        helper.make_node("MatMul", ["observation", "w"], ["first"]),
        helper.make_node("Quiet", ["true", "first"], ["scores"]),
    ]
    constants = [weights(), numpy_helper.from_array(np.array(True), "true")]
    return network_of(nodes, initializers=constants, functions=[function])


def external_model(location="../../etc/passwd", *, as_constant=False):
    tensor = weights()
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    if not as_constant:
        return network_of([MATMUL], initializers=[tensor])
    return network_of([helper.make_node("Constant", [], ["w"], value=tensor), MATMUL])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: network_of([helper.make_node("Run", ["observation"], ["scores"], domain="com.evil")]), "operator com.evil.Run"),
        (
            lambda: network_of([helper.make_node("Gelu", ["observation"], ["scores"], domain="com.microsoft")]),
            "operator com.microsoft.Gelu is not allowed; allowed: standard ONNX",
        ),
        (loop_model, "operator Loop is not allowed"),
        (function_model, "defines functions of its own"),
        (external_model, "keeps weights in another file"),
        (lambda: external_model(as_constant=True), "keeps weights in another file"),
        (lambda: network_of([]), "holds no operators"),
        (lambda: network_of([helper.make_node("NoSuchOperator", ["observation"], ["scores"])]), "model.onnx cannot be loaded"),
        (lambda: b"", "model.onnx: "),
        (lambda: b"\x3a" + b"\xff" * 30, "is not an ONNX file, or is cut off"),
        (lambda: b"\x3a\x00" * 2, "holds 2 graphs"),
        (lambda: network_of([MATMUL], 20, initializers=[weights(20)]), "policy.json has 21 observation fields"),
        (lambda: network_of([MATMUL], outputs=5, initializers=[weights(outputs=5)]), "policy.json has 8 actions"),
    ],
)
def test_a_model_with_anything_but_standard_operators_and_fitting_shapes_is_refused(tiny_artifact, model, message):
    put_model(tiny_artifact, model())
    assert message in refusal(tiny_artifact)


def test_an_ordinary_model_of_the_same_making_is_accepted(tiny_artifact):
    put_model(tiny_artifact, network_of([MATMUL], initializers=[weights()]))
    assert load_policy(tiny_artifact).act(observations(3))[0].action.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(schema_version=2), "schema_version: 2 is not allowed; allowed: 1"),
        (lambda s: s.update(name="../../etc/passwd"), "name: '../../etc/passwd' is not allowed"),
        (lambda s: s.update(name="n" * 300), "name: 'nnn"),
        (lambda s: s.update(version=""), "version: '' is not allowed"),
        (lambda s: s.update(kind="pickle"), "kind: "),
        (lambda s: s.update(kind="rule"), "cannot be loaded"),
        (lambda s: s.update(kind="table"), "a table needs table.npz alone, it lists ['model.onnx']"),
        (lambda s: s.update(surprise=1), "surprise: "),
        (lambda s: s.pop("actions"), "policy.json has 0 actions"),
        (lambda s: s.pop("env_id"), "env_id: "),
        (lambda s: s.update(files={}), "model.onnx: is not listed in policy.json"),
        (lambda s: s["env_params"].update(max_replicas=0), "env_params.max_replicas: 0 is not allowed"),
        (lambda s: s["env_params"].update(gravity=9.81), "gravity: unknown key"),
        (lambda s: s["env_params"].update(max_replicas="sixty"), "env_params"),
        (lambda s: s.update(env_id="scalepilot/Autoscale-v9"), "env_id: 'scalepilot/Autoscale-v9' is not allowed"),
        (
            lambda s: s["env_params"].update(max_replicas=5.5),
            "max_replicas: 5.5 is not allowed; allowed: whole numbers",
        ),
        (lambda s: s["env_params"].update(window_steps=10**9), "env_params.window_steps: 1000000000 is not"),
        (lambda s: s["env_params"].update(startup_seconds=1e12), "env_params.startup_seconds: 1000000000000.0 is not"),
        (lambda s: s["observation_fields"].append(s["observation_fields"][0]), "'request_rate_rps_0' is given twice"),
        (lambda s: s["observation_fields"].pop(), "policy.json has 20 observation fields"),
        (lambda s: s["observation_fields"][0].update(low=5, high=1), "bounds 5"),
        (lambda s: s["observation_fields"][0].update(low="x"), "observation_fields.0.low: "),
        (lambda s: s["actions"][0].update(kind="absolute", size=0.5), "moves.size: 0.5 is not allowed"),
        (lambda s: s.update(decision_rule="argmax_vibes"), "decision_rule: "),
    ],
)
def test_a_description_that_says_something_unfit_is_refused(tiny_artifact, change, message):
    edit_spec(tiny_artifact, change)
    assert message in refusal(tiny_artifact)


def test_an_action_tables_index_must_be_its_place(tiny_artifact):
    edit_spec(tiny_artifact, lambda s: s["actions"].reverse())
    assert "actions" in refusal(tiny_artifact)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_know_is_refused(tiny_artifact, number):
    path = tiny_artifact / "policy.json"
    path.write_text(path.read_text().replace('"low": 0.0', f'"low": {number}', 1))
    assert f"{float(number)} is not allowed; allowed: finite numbers" in refusal(tiny_artifact)


def test_a_number_too_large_for_a_float_is_refused(tiny_artifact):
    path = tiny_artifact / "policy.json"
    path.write_text(path.read_text().replace('"high": 1000000.0', '"high": 1e400', 1))
    assert "high: inf is not allowed; allowed: finite numbers" in refusal(tiny_artifact)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_nested_too_deep_is_refused(tiny_artifact, opening):
    (tiny_artifact / "policy.json").write_text(opening * 100_000)
    assert "is not JSON, or is cut off" in refusal(tiny_artifact)


@pytest.mark.parametrize("text", ["null", "[]", '"policy"', "7", "{}"])
def test_json_of_another_shape_is_refused(tiny_artifact, text):
    (tiny_artifact / "policy.json").write_text(text)
    assert "policy.json: " in refusal(tiny_artifact)


def test_a_description_of_a_megabyte_is_refused_before_it_is_read(tiny_artifact):
    with (tiny_artifact / "policy.json").open("ab") as file:
        file.write(b" " * 1_000_001)
    assert "allowed: up to 1000000" in refusal(tiny_artifact)


def test_a_rules_parameters_are_checked_when_loaded(tmp_path):
    save_policy(Hpa(HpaParameters(), PARAMS), tmp_path / "p")
    edit_spec(tmp_path / "p", lambda s: s["rule"]["parameters"].update(target="__import__('os')"))
    assert "rule.parameters: " in refusal(tmp_path / "p")
    edit_spec(tmp_path / "p", lambda s: s["rule"].update(name="hpaa"))
    assert "did you mean hpa?" in refusal(tmp_path / "p")


def test_a_rule_for_other_fields_than_its_service_shows_is_refused(tmp_path):
    save_policy(Hpa(HpaParameters(), PARAMS), tmp_path / "p")
    edit_spec(tmp_path / "p", lambda s: s["observation_fields"].pop(0))
    assert "made for another observation space (20 fields, here 21)" in refusal(tmp_path / "p")


def test_what_is_neither_a_network_nor_a_rule_is_not_saved(tmp_path, tiny_network):
    class Foreign:
        spec = tiny_network().spec

    with pytest.raises(ArtifactError, match="tiny: a Foreign cannot be stored"):
        save_policy(Foreign(), tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_a_description_that_is_no_json_is_not_saved_and_leaves_nothing(tmp_path, tiny_network):
    with pytest.raises(ValueError, match="JSON"):
        save_policy(tiny_network(evaluation={"J": float("nan")}), tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def _save_for_ever(folder):
    sizes = [3, 4]
    while True:
        for replicas in sizes:
            save_policy(Static(StaticParameters(replicas), PARAMS, provenance={"pad": "x" * 200_000}), folder)


def test_a_writer_killed_at_any_moment_leaves_a_whole_artifact_or_none(tmp_path):
    folder, context = tmp_path / "p", multiprocessing.get_context("fork")
    save_policy(Static(StaticParameters(3), PARAMS), folder)
    for i in range(12):
        writer = context.Process(target=_save_for_ever, args=(folder,))
        writer.start()
        time.sleep(0.02 + 0.003 * i)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        assert load_policy(folder).parameters.replicas in (3, 4)
    save_policy(Static(StaticParameters(9), PARAMS), folder)
    assert load_policy(folder).parameters.replicas == 9


def test_a_reader_never_finds_the_artifact_gone_while_it_is_replaced(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    if not _swapped(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange two folders in one step")
    folder, context = tmp_path / "p", multiprocessing.get_context("fork")
    save_policy(Static(StaticParameters(3), PARAMS), folder)
    writer = context.Process(target=_save_for_ever, args=(folder,))
    writer.start()
    try:
        end, looks, written = time.monotonic() + 2.0, 0, set()
        while time.monotonic() < end:
            assert folder.is_dir()
            looks += 1
            if looks % 100 == 0:
                written.add(folder.stat().st_mtime_ns)
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    assert len(written) > 2


def test_a_failed_write_keeps_the_artifact_that_was_there(tiny_artifact, tiny_network):
    before = {p.name: p.read_bytes() for p in tiny_artifact.iterdir()}
    with pytest.raises(ValueError, match="JSON"):
        save_policy(tiny_network(evaluation={"J": float("inf")}), tiny_artifact)
    assert {p.name: p.read_bytes() for p in tiny_artifact.iterdir()} == before
    assert [p.name for p in tiny_artifact.parent.iterdir()] == [tiny_artifact.name]


def test_an_artifact_of_another_observation_space_is_named_with_the_field_that_differs(tiny_network):
    ours = make_rule("hpa", PARAMS).spec.observation_fields
    theirs = make_rule("hpa", AutoscaleParams(observe_clock=True)).spec.observation_fields
    with pytest.raises(ArtifactError, match=r"x: made for .* \(25 fields, here 21\): it needs clock_day_sin"):
        check_same_fields("x", theirs, ours)
    with pytest.raises(ArtifactError, match="it does not know clock_day_sin"):
        check_same_fields("x", ours, theirs)
    with pytest.raises(ArtifactError, match="the same fields in another order"):
        check_same_fields("x", ours[::-1], ours)
    check_same_fields("x", ours, ours)


def test_greedy_is_the_default_and_sampling_follows_the_scores(tiny_network):
    policy, observation = tiny_network(), observations(1).repeat(4000, axis=0) * 0.01
    greedy, _ = policy.act(observation)
    assert len(set(greedy.action.tolist())) == 1
    sampled, _ = policy.act(observation, deterministic=False, rng=np.random.default_rng(0))
    scores = greedy.scores[0].astype(float)
    shares = np.exp(scores - scores.max())
    np.testing.assert_allclose(np.bincount(sampled.action, minlength=8) / 4000, shares / shares.sum(), atol=0.03)
    with pytest.raises(ValueError, match="rng: needed"):
        policy.act(observation, deterministic=False)


def test_q_values_are_never_sampled(tiny_network):
    policy = tiny_network(decision_rule="argmax_q")
    greedy, _ = policy.act(observations())
    again, _ = policy.act(observations(), deterministic=False, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(greedy.action, again.action)


def test_a_networks_targets_stay_within_the_services_bounds(tiny_network):
    policy = tiny_network(env_params=asdict(AutoscaleParams(min_replicas=5, max_replicas=9)))
    desired = policy.act(observations())[0].desired_replicas
    assert desired.min() >= 5
    assert desired.max() <= 9


def test_a_batch_decides_as_each_of_its_rows_alone(tiny_network):
    policy = tiny_network()
    together, _ = policy.act(observations(20))
    for i, row in enumerate(observations(20)):
        alone, _ = policy.act(row[None])
        assert alone.action[0] == together.action[i]
        assert alone.desired_replicas[0] == together.desired_replicas[i]


def named(**changes):
    return {f.name: f.low for f in make_rule("hpa", PARAMS).spec.observation_fields} | changes


def test_a_clients_named_fields_are_put_in_order():
    fields = make_rule("hpa", PARAMS).spec.observation_fields
    values = named(ready_replicas=7, cpu_utilisation=0.5)
    shuffled = dict(reversed(values.items()))
    assert observation_row(fields, shuffled) == [float(values[f.name]) for f in fields]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpu_utilisation": 1.5}, "cpu_utilisation: 1.5 is not allowed; allowed: 0 to 1 share"),
        ({"cpu_utilisation": "0.5"}, "cpu_utilisation: '0.5' is not allowed"),
        ({"cpu_utilisation": True}, "cpu_utilisation: True is not allowed"),
        ({"cpu_utilisation": None}, "cpu_utilisation: None is not allowed"),
        ({"cpu_utilisation": float("nan")}, "cpu_utilisation: nan is not allowed"),
        ({"ready_replicas": -1}, "ready_replicas: -1 is not allowed; allowed: 0 to 60 replicas"),
        ({"cpu_utilization": 0.5}, "cpu_utilization: unknown field; did you mean cpu_utilisation?"),
        ({"backlog_requests": 10**400}, "backlog_requests: 1000"),
    ],
)
def test_a_clients_unfit_field_is_named_with_unit_and_range(changes, message):
    fields = make_rule("hpa", PARAMS).spec.observation_fields
    with pytest.raises(ObservationError) as caught:
        observation_row(fields, named(**changes))
    assert str(caught.value).startswith(message)
    assert caught.value.problems[0]["field"] == next(iter(changes))


def test_many_problems_are_all_listed_and_three_are_said():
    with pytest.raises(ObservationError, match=r"and 18 more$") as caught:
        observation_row(make_rule("hpa", PARAMS).spec.observation_fields, {})
    assert len(caught.value.problems) == 21
    assert all("is missing; allowed: " in p["problem"] for p in caught.value.problems)


def test_a_description_alone_is_read_without_the_model(tiny_artifact):
    (tiny_artifact / "model.onnx").unlink()
    assert read_spec(tiny_artifact).name == "tiny"


def test_a_network_policy_is_built_from_checked_bytes_only(tiny_network):
    with pytest.raises(ArtifactError, match=r"model.onnx: holds 0 graphs; allowed: one ONNX graph"):
        NetworkPolicy(tiny_network().spec, b"\x08\x07")


def test_options_that_change_what_is_observed_travel_with_the_policy(tmp_path: Path):
    env = find_env("QueueScaling-v0").describe(None, bounded_observation=True, workload="spike")
    save_policy(make_rule("tracking", env), tmp_path / "rule")
    assert load_policy(tmp_path / "rule").spec.env_options == {"bounded_observation": True}
    path = tmp_path / "rule" / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"env_options": {}}))
    with pytest.raises(ArtifactError, match="made for another observation space"):
        load_policy(tmp_path / "rule")
