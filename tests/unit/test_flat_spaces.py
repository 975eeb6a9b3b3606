"""Whatever gymnasium's spaces allow becomes named numbers, an image or a table of actions, or is refused by name."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from scalepilot_envs.adapters.flat_actions import MAX_COMBINATIONS, FlatActions
from scalepilot_envs.adapters.flat_observation import FlatObservation


def axes(shape):
    return ("height", "width", "channels")


def flat(space, mask_size=0):
    return FlatObservation(space, mask_size, image_axes=axes)


def names(space):
    return [f.name for f in flat(space).fields]


NESTED = spaces.Dict(
    {
        "agent": spaces.Dict({"direction": spaces.Discrete(4, start=-1), "bag": spaces.MultiBinary([2, 2])}),
        "position": spaces.Box(-1, 1, (2,), np.float64),
        "dice": spaces.MultiDiscrete([[6, 6]], start=[[1, 1]]),
        "pair": spaces.Tuple([spaces.Box(0, 5, (), np.int64), spaces.Discrete(2)]),
        "on": spaces.Box(0, 1, (1,), bool),
    }
)


def test_fields_are_named_by_path():
    bag = [f"agent.bag_{i}_{j}" for i in (0, 1) for j in (0, 1)]
    others = ["agent.direction", "position_0", "position_1", "dice_0_0", "dice_0_1", "pair_0", "pair_1", "on_0"]
    assert sorted(names(NESTED)) == sorted([*bag, *others])
    assert names(spaces.Box(0, 1, (2, 1))) == ["observation_0_0", "observation_1_0"]
    assert names(spaces.Box(0, 1, ())) == ["observation"]
    assert names(spaces.Tuple([spaces.Discrete(3), spaces.Dict({"a b": spaces.Box(0, 1, ())})])) == [
        "observation_0",
        "observation_1.a_b",
    ]


def test_every_number_has_the_bounds_of_its_space():
    bounds = {f.name: (f.low, f.high) for f in flat(NESTED).fields}
    assert bounds["agent.direction"] == (-1, 2)
    assert bounds["dice_0_1"] == (1, 6)
    assert bounds["pair_0"] == (0, 5)
    assert bounds["agent.bag_1_0"] == bounds["on_0"] == (0, 1)


@pytest.mark.parametrize(
    "space",
    [
        NESTED,
        spaces.Box(-np.inf, np.inf, (3,), np.float64),
        spaces.Box(0, np.inf, (2, 3, 4), np.float32),
        spaces.Box(0, 255, (7, 7, 3), np.uint8),
        spaces.MultiBinary(5),
        spaces.MultiDiscrete([3, 4]),
        spaces.Tuple([NESTED, spaces.Discrete(3)]),
    ],
)
def test_samples_become_float32_numbers_within_their_own_space(space):
    space.seed(0)
    shown = flat(space)
    for _ in range(20):
        row = shown(space.sample())
        assert row.dtype == np.float32
        assert row.shape == (len(shown.fields),)
        assert shown.space.contains(row)


def test_numbers_stand_in_the_order_of_the_fields():
    sample = {
        "agent": {"direction": np.int64(2), "bag": np.array([[1, 0], [0, 1]], np.int8)},
        "position": np.array([0.25, -0.5]),
        "dice": np.array([[3, 6]]),
        "pair": (np.array(4), np.int64(1)),
        "on": np.array([True]),
    }
    row = dict(zip(names(NESTED), flat(NESTED)(sample).tolist(), strict=True))
    assert row["agent.direction"] == 2
    assert [row[f"agent.bag_{i}_{j}"] for i in (0, 1) for j in (0, 1)] == [1, 0, 0, 1]
    assert (row["position_1"], row["dice_0_1"], row["pair_0"], row["pair_1"], row["on_0"]) == (-0.5, 6, 4, 1, 1)


def test_one_integer_is_a_numbered_state_wherever_it_starts():
    assert flat(spaces.Discrete(5, start=3)).numbered == 5
    assert flat(spaces.Discrete(5, start=3)).plain
    assert flat(spaces.Discrete(5), mask_size=2).numbered == 5
    assert flat(spaces.Tuple([spaces.Discrete(5), spaces.Discrete(2)])).numbered is None


@pytest.mark.parametrize(
    ("box", "shape", "dtype"),
    [
        (spaces.Box(0, 255, (84, 84, 3), np.uint8), (84, 84, 3), "uint8"),
        (spaces.Box(0, 1, (84, 84, 3), np.float32), (84, 84, 3), "float32"),
        (spaces.Box(0, 255, (84, 84), np.uint8), (84, 84, 1), "uint8"),
        (spaces.Box(0, 1, (4, 40, 40, 3), np.float64), (40, 40, 12), "float32"),
    ],
)
def test_images_stay_images(box, shape, dtype):
    for space in (box, spaces.Dict({"pixels": box})):
        shown = flat(space)
        (field,) = shown.fields
        assert (field.name, field.shape, field.dtype) == ("image", shape, dtype)
        space.seed(0)
        picture = shown(space.sample())
        assert picture.shape == shape
        assert picture.dtype == dtype
        assert shown.space.contains(picture)


def test_stacked_pictures_lie_colour_by_colour_behind_one_another():
    box = spaces.Box(0, 255, (2, 40, 40, 3), np.uint8)
    picture = flat(box)(np.stack([np.full((40, 40, 3), 10, np.uint8), np.full((40, 40, 3), 20, np.uint8)]))
    assert picture[0, 0].tolist() == [10, 10, 10, 20, 20, 20]


REFUSED = {
    "word": spaces.Text(5),
    "graph": spaces.Graph(spaces.Box(0, 1, (2,)), None),
    "list": spaces.Sequence(spaces.Discrete(2)),
    "either": spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]),
    "own": gym.Space(shape=None),
}


@pytest.mark.parametrize("key", REFUSED)
def test_a_space_without_a_fixed_count_of_numbers_is_refused_by_its_path(key):
    kind = type(REFUSED[key]).__name__
    with pytest.raises(ValueError, match=rf"^a\.{key} is {kind}, which is not allowed; allowed: Box, Discrete, "):
        flat(spaces.Dict({"a": spaces.Dict({key: REFUSED[key], "fine": spaces.Discrete(2)})}))
    with pytest.raises(ValueError, match=rf"^action_1 is {kind}, which is not allowed; allowed: Box, Discrete, "):
        FlatActions(spaces.Tuple([spaces.Discrete(2), REFUSED[key]]))


def test_too_many_numbers_and_twins_are_refused():
    with pytest.raises(
        ValueError, match=r"^camera is Box \(84, 84, 3\) uint8 beside other parts, 21,168 numbers in all; allowed"
    ):
        flat(spaces.Dict({"camera": spaces.Box(0, 255, (84, 84, 3), np.uint8), "speed": spaces.Box(0, 1, ())}))
    with pytest.raises(ValueError, match="both called a_0"):
        flat(spaces.Dict({"a": spaces.Box(0, 1, (1,)), "a_0": spaces.Box(0, 1, ())}))
    with pytest.raises(ValueError, match=r"^observation is Dict without a part"):
        flat(spaces.Dict({}))


def test_an_observation_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"^agent.bag has shape \(3,\); allowed: \(2, 2\)"):
        flat(spaces.Dict({"agent": spaces.Dict({"bag": spaces.MultiBinary([2, 2])})}))({"agent": {"bag": np.zeros(3)}})
    with pytest.raises(ValueError, match=r"^agent is missing from the observation"):
        flat(spaces.Dict({"agent": spaces.Box(0, 1, ()), "b": spaces.Box(0, 1, ())}))({"b": 0.0})


ACTIONS = [
    spaces.Discrete(3, start=-1),
    spaces.Discrete(3, start=5, dtype=np.int32),
    spaces.MultiDiscrete([3, 2]),
    spaces.MultiDiscrete([[3, 2], [2, 2]], start=[[1, 0], [0, -1]]),
    spaces.MultiBinary([2, 2]),
    spaces.Box(-1, 1, (2,), np.int64),
    spaces.Box(0, 1, (3,), bool),
    spaces.Dict({"gear": spaces.Discrete(3, start=1), "lamps": spaces.MultiBinary(2)}),
    spaces.Tuple([spaces.Discrete(2), spaces.Tuple([spaces.Discrete(3)])]),
]


@pytest.mark.parametrize("space", ACTIONS, ids=str)
def test_every_row_of_the_table_is_another_action_that_the_environment_takes(space):
    actions = FlatActions(space)
    taken = [actions.real(i) for i in range(actions.space.n)]
    assert all(space.contains(action) for action in taken)
    assert len({str(action) for action in taken}) == actions.space.n == len(actions.actions)
    assert len({action.label for action in actions.actions}) == len(taken)
    space.seed(0)
    assert {str(space.sample()) for _ in range(2000)} <= {str(action) for action in taken}


def test_labels_and_values_are_what_the_environment_takes():
    assert [(a.label, a.value) for a in FlatActions(spaces.Discrete(3, start=-1)).actions] == [("-1", -1), ("0", 0), ("1", 1)]
    assert [(a.label, a.value) for a in FlatActions(spaces.Discrete(2)).actions] == [("0", None), ("1", None)]
    assert [(a.label, a.value) for a in FlatActions(spaces.MultiDiscrete([2, 2])).actions][1] == ("(0, 1)", [0, 1])
    (first, *_) = FlatActions(ACTIONS[7]).actions
    assert (first.label, first.value) == ("gear 1, lamps (0, 0)", {"gear": 1, "lamps": [0, 0]})
    words = FlatActions(spaces.Discrete(2, start=3), ["up", "down"]).actions
    assert [(a.label, a.value) for a in words] == [("up", 3), ("down", 4)]


def test_continuous_actions_of_any_shape_are_numbers_within_their_bounds():
    box = spaces.Box(np.array([[-1, 0.1]]), np.array([[2, 0.3]]), (1, 2), np.float64)
    space = spaces.Dict({"arm": box, "force": spaces.Box(0, 5, (), np.float32)})
    actions = FlatActions(space)
    assert [c.name for c in actions.components] == ["arm_0_0", "arm_0_1", "force"]
    for numbers in (actions.space.low, actions.space.high, actions.space.sample()):
        assert space.contains(actions.real(numbers))
    assert actions.real(np.array([1.0, 0.2, 3.0], np.float32))["force"] == 3


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.MultiDiscrete([40, 40]), f"action is MultiDiscrete with 1,600 combinations; allowed: up to {MAX_COMBINATIONS:,}"),
        (spaces.MultiBinary(80), "over a billion combinations"),
        (spaces.Box(0, np.inf, (2,)), "action: action_0 is a number from 0 to inf; allowed: finite bounds"),
        (spaces.Box(1, 1, ()), "action: action is a number from 1 to 1; allowed: finite bounds"),
        (
            spaces.Dict({"go": spaces.Discrete(2), "far": spaces.Box(0, 1, ())}),
            "action go is chosen from a list and action far is",
        ),
        (spaces.Box(-(2**31), 2**31 - 1, (2,), np.int32), "over a billion combinations"),
        (spaces.Discrete(2_000_000), "2,000,000 combinations; allowed: up to 10,000"),
    ],
)
def test_actions_that_no_policy_can_choose_are_refused_by_name(space, message):
    with pytest.raises(ValueError, match=message):
        FlatActions(space)


def test_a_mask_of_several_choices_is_that_of_their_combinations():
    actions = FlatActions(spaces.MultiDiscrete([3, 2]))
    wanted = [False, False, True, False, True, False]
    assert actions.mask([np.array([0, 1, 1]), np.array([1, 0])], "mask").tolist() == wanted
    assert actions.mask(np.array([0, 1, 1, 1, 0]), "mask").tolist() == wanted
    assert actions.mask(wanted, "mask").tolist() == wanted
    with pytest.raises(
        ValueError, match=r"^mask: 4 values are not allowed; allowed: 6, one an action, or 5, those of each choice"
    ):
        actions.mask([1, 1, 1, 1], "mask")
    with pytest.raises(ValueError, match="takes continuous actions"):
        FlatActions(spaces.Box(0, 1, (1,))).mask([1], "mask")
