"""The picture of a Q-table: the right action in the right cell, blank where nothing was learnt."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import asdict

import numpy as np
import pytest

from scalepilot.errors import InputError
from scalepilot.policy import Discretiser, PolicySpec, TablePolicy, env_actions, env_fields
from scalepilot.report.charts.q_table import q_table_picture
from scalepilot_envs.registration import find_env


def table(edges, env_id="QueueScaling-v0"):
    env = find_env(env_id).describe()
    grid = Discretiser(env_fields(env), edges)
    spec = PolicySpec(
        name="drawn", version="1", kind="table", env_id=env.env_id, env_params=asdict(env.params),
        observation_fields=env_fields(env), actions=env_actions(env), decision_rule="argmax_q",
    )  # fmt: skip
    return TablePolicy(spec, np.zeros((grid.num_states, len(env.actions))), grid)


def texts(path):
    return [element.text for element in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_two_fields_show_the_greedy_action_where_something_was_learnt(tmp_path):
    policy = table({"instances_share": [0.5], "load_share": [0.3, 0.6], "queue_requests": [10.0]})
    q = policy.q.reshape(2, 3, 2, 3)
    q[0, 2, 1] = [0.0, 0.0, 7.0]
    q[1, 0, 1] = [3.0, 0.0, 0.0]
    q[1, 1, 0] = [0.0, 9.0, 0.0]
    held = q_table_picture(policy, tmp_path / "plots" / "q.svg", ("instances_share", "load_share"))
    assert held == {"queue_requests": pytest.approx((10 + 47850) / 2)}, "the plane with most learnt cells"
    shown = texts(tmp_path / "plots" / "q.svg")
    assert [t for t in shown if t in ("−1", "hold", "+1")] == ["−1", "+1"]
    assert "to 7" in shown
    q_table_picture(policy, tmp_path / "q.svg", ("instances_share", "load_share"), {"queue_requests": 2.0})
    assert [t for t in texts(tmp_path / "q.svg") if t in ("−1", "hold", "+1")] == ["hold"]


def test_one_field_shows_the_value_of_every_action(tmp_path):
    policy = table({}, "GridWorld-v0")
    policy.q[5] = [1.0, 2.0, 3.5, 4.0]
    assert q_table_picture(policy, tmp_path / "q.svg") == {}
    shown = texts(tmp_path / "q.svg")
    assert "3.5" in shown
    assert [t for t in shown if t in ("up", "right", "down", "left")] == ["left", "down", "right", "up"]


@pytest.mark.parametrize(
    ("fields", "at", "expected"),
    [(("load",), {}, "'load' is not allowed"), (("load_share", "load_share"), {}, "one or two different"), ((), {"x": 1}, "'x'")],
)
def test_a_field_that_the_table_does_not_see_is_refused(tmp_path, fields, at, expected):
    with pytest.raises(InputError, match=expected):
        q_table_picture(table({"load_share": [0.3]}), tmp_path / "q.svg", fields, at)
