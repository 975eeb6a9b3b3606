"""The table artifact: what is saved is what is loaded, and any other file is refused before anything of it is believed."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from dataclasses import asdict, replace

import numpy as np
import pytest

from scalepilot.errors import ArtifactError
from scalepilot.policy import Discretiser, PolicySpec, TablePolicy, env_actions, env_fields, load_policy, save_policy
from scalepilot_envs.registration import find_env

EDGES = {"load_share": [0.5, 0.9], "queue_requests": [1.0]}


def table(edges=EDGES, env_id="QueueScaling-v0", seed=0):
    env = find_env(env_id).describe()
    grid = Discretiser(env_fields(env), edges)
    spec = PolicySpec(
        name="tab",
        version="1",
        kind="table",
        env_id=env.env_id,
        env_params=asdict(env.params),
        observation_fields=env_fields(env),
        actions=env_actions(env),
        decision_rule="argmax_q",
    )
    return TablePolicy(spec, np.random.default_rng(seed).normal(size=(grid.num_states, len(env.actions))), grid)


def observations(count=200):
    high = [1.0, 1.0, 8700.0, 4350.0, 3.0]
    return (np.random.default_rng(1).random((count, 5)) * high).astype(np.float32)


def test_a_table_is_loaded_as_it_was_saved(tmp_path):
    saved = table()
    written = save_policy(saved, tmp_path / "p")
    loaded = load_policy(tmp_path / "p")
    assert isinstance(loaded, TablePolicy)
    assert loaded.spec == written == replace(saved.spec, files=written.files)
    np.testing.assert_array_equal(loaded.q, saved.q)
    ours, theirs = saved.act(observations())[0], loaded.act(observations())[0]
    np.testing.assert_array_equal(ours.action, theirs.action)
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    np.testing.assert_array_equal(ours.desired_replicas, theirs.desired_replicas)
    assert len(np.unique(ours.action)) == 3


def test_numbered_states_need_no_edges(tmp_path):
    save_policy(table({}, "GridWorld-v0"), tmp_path / "p")
    loaded = load_policy(tmp_path / "p")
    np.testing.assert_array_equal(loaded.act(np.arange(9)[:, None])[0].action, loaded.q.argmax(axis=1))


def test_ties_go_to_the_first_action():
    policy = table()
    tied = TablePolicy(policy.spec, np.zeros_like(policy.q), policy.discretiser)
    assert (tied.act(observations())[0].action == 0).all()


def test_the_same_table_gives_the_same_bytes_and_another_table_others():
    assert table().to_bytes() == table().to_bytes()
    assert table().to_bytes() != table(seed=1).to_bytes()


def test_numpy_reads_the_file_without_pickle():
    with np.load(io.BytesIO(table().to_bytes()), allow_pickle=False) as arrays:
        assert set(arrays.files) == {"q", "edges_1", "edges_4"}


def test_a_table_loads_without_torch_and_ray(tmp_path):
    save_policy(table(), tmp_path / "p")
    code = (
        "import sys; from scalepilot.policy import load_policy; load_policy(sys.argv[1]);"
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "p")], check=True)


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def claiming(header, body=b""):
    """A member whose header says `header`."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def archive(members, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as made:
        for name, data in members:
            made.writestr(name, data)
    return stream.getvalue()


GOOD = {"q.npy": npy(table().q), "edges_1.npy": npy(np.array(EDGES["load_share"], "f4")), "edges_4.npy": npy(np.ones(1, "f4"))}


def changed(**members):
    return archive({**GOOD, **{f"{name}.npy": data for name, data in members.items()}}.items())


class Dangerous:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "not a zip file"),
        (changed()[:-30], "not a zip file"),
        (archive([]), "holds no q.npy"),
        (archive([*GOOD.items(), ("q.pkl", b"x")]), "'q.pkl' is not allowed"),
        (archive([*GOOD.items(), ("../q.npy", b"x")]), "is not allowed"),
        (archive(GOOD.items(), zipfile.ZIP_DEFLATED), "is compressed or encrypted"),
        (changed(q=npy(np.array([[Dangerous()]], dtype=object), allow_pickle=True)), "q.npy is |O"),
        (changed(q=npy(np.asfortranarray(table().q))), "in Fortran order"),
        (changed(q=npy(table().q.astype("f4"))), "q.npy is <f4"),
        (changed(q=npy(table().q[0])), "with 2 axes"),
        (changed(q=npy(table().q[:5])), "holds Q-values of 5 states and 3 actions, its edges make 3 × 2 = 6 states"),
        (changed(q=npy(table().q[:, :2])), "2 actions"),
        (changed(q=npy(table().q * np.nan)), "not finite"),
        (changed(q=claiming("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000), }")), "q.npy claims"),
        (
            changed(q=claiming("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -8), }", b"\0" * 64)),
            "its header is not one",
        ),
        (changed(q=claiming("{'descr': '<f8', 'fortran_order': False, 'shape': (6, 3), }", b"\0" * 64)), "q.npy claims"),
        (changed(q=claiming("__import__('os').abort()")), "q.npy: its header is not one of a plain array"),
        (changed(q=b"\x93NUMPY\x01\x00"), "its header is not one"),
        (changed(q=claiming("[" * 100)), "its header is not one"),
        (changed(edges_1=npy(np.array([0.9, 0.5], "f4"))), "edges.load_share: are not allowed"),
        (changed(edges_1=npy(np.array([0.5, np.nan], "f4"))), "edges.load_share: are not allowed"),
        (changed(edges_17=npy(np.ones(1, "f4"))), "has edges of observation field 17, policy.json has 5"),
        (changed(edges_2=npy(np.ones(5000, "f4"))), "edges_2.npy claims"),
    ],
)
def test_another_file_is_refused_in_one_line_and_nothing_in_it_runs(tmp_path, data, expected):
    folder = tmp_path / "p"
    save_policy(table(), folder)
    (folder / "table.npz").write_bytes(data)
    spec = json.loads((folder / "policy.json").read_text())
    spec["files"]["table.npz"] = hashlib.sha256(data).hexdigest()
    (folder / "policy.json").write_text(json.dumps(spec))
    with pytest.raises(ArtifactError) as caught:
        load_policy(folder)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def edited(tmp_path, change):
    folder = tmp_path / "p"
    save_policy(table(), folder)
    spec = json.loads((folder / "policy.json").read_text())
    change(spec)
    (folder / "policy.json").write_text(json.dumps(spec))
    with pytest.raises(ArtifactError) as caught:
        load_policy(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda spec: spec["files"].update({"table.npz": "0" * 64}), "differs from 000000000000"),
        (lambda spec: spec["files"].clear(), "is not listed in policy.json"),
        (lambda spec: spec["actions"].pop(), "policy.json has 2 actions"),
        (lambda spec: spec.update(observation_fields=spec["observation_fields"][:3]), "policy.json has 3 observation fields"),
        (lambda spec: spec.update(kind="network"), "a network needs model.onnx alone"),
    ],
)
def test_a_description_that_does_not_fit_the_table_is_refused(tmp_path, change, expected):
    folder = tmp_path / "p"
    save_policy(table(), folder)
    spec = json.loads((folder / "policy.json").read_text())
    change(spec)
    (folder / "policy.json").write_text(json.dumps(spec))
    with pytest.raises(ArtifactError, match=expected):
        load_policy(folder)
