"""Every registered environment keeps the contract, and the contract itself notices what it promises to notice."""

from __future__ import annotations

import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from scalepilot_envs import ENVS, EnvEntry, add_env, find_env, register_envs
from scalepilot_envs.autoscale import Move, MoveTable
from scalepilot_envs.registration import MODULE_PREFIX
from scalepilot_envs.testing import ContractError, check_scaling_env

EPISODE_STEPS = 20
AUTOSCALE = "scalepilot/Autoscale-v0"
# One short synthetic day keeps the contract quick; "noisy" also draws capacity, start-up and workload anew each episode.
VARIANTS = {
    AUTOSCALE: {
        "plain": {"workload": {"kind": "diurnal", "days": 1}},
        "noisy": {
            "workload": {"kind": "diurnal", "days": 1},
            "randomisation": {"workload_scale": (0.5, 1.5), "capacity_scale": (0.5, 2.0), "startup_scale": (0.25, 3.0)},
            "params": {"observe_clock": True},
        },
        "measured": {
            "workload": {"kind": "diurnal", "days": 1},
            "randomisation": {"measurement_noise": (0.05, 0.3)},
            "params": {"metric_lag_steps": 3},
        },
        "live": {
            "workload": {"kind": "diurnal", "days": 1},
            "randomisation": {
                "actuation_lag_steps": (0, 3),
                "measurement_phase": (0.0, 1.0),
                "field_dropout": (0.0, 0.5),
                "rate_dropout": (0.0, 0.5),
                "stuck_share": (0.0, 0.5),
                "startup_scale": (0.25, 3.0),
            },
        },
    },
    "scalepilot/QueueScaling-v0": {
        "plain": {},
        "random": {"workload": "random"},
        "bounded": {"workload": "poisson", "bounded_observation": True},
        "phase": {"random_phase": True},
    },
    "scalepilot/FunctionWorkflow-v0": {"plain": {}, "shuffled": {"phase_shuffle": True}},
    "scalepilot/ClusterDeployment-v0": {"plain": {}, "phase": {"random_phase": True, "weekend_day": 1}},
}
# The same whatever the seed: the world has no luck in it.
DETERMINISTIC = {("scalepilot/GridWorld-v0", "plain"), ("scalepilot/QueueScaling-v0", "plain")}
CASES = [(env_id, variant) for env_id in ENVS for variant in VARIANTS.get(env_id, {"plain": {}})]
ANY_ENV = pytest.mark.parametrize("env_id", ENVS)
SCALING = [env_id for env_id in ENVS if env_id != "scalepilot/GridWorld-v0"]
ANY_SCALING_ENV = pytest.mark.parametrize("env_id", SCALING)


def arguments(env_id, variant="plain"):
    return {"episode_steps": EPISODE_STEPS} | VARIANTS.get(env_id, {"plain": {}})[variant]


def make_vec(env_id, num_envs, autoreset_mode=AutoresetMode.NEXT_STEP, variant="plain"):
    return ENVS[env_id].vector_maker()(num_envs, autoreset_mode=autoreset_mode, **arguments(env_id, variant))


@pytest.mark.parametrize("batch_sizes", [(1, 3, 17), pytest.param((2, 40), marks=pytest.mark.slow)])
@pytest.mark.parametrize(("env_id", "variant"), CASES)
def test_every_environment_keeps_the_contract(env_id, variant, batch_sizes):
    check_scaling_env(
        lambda: gym.make(env_id, **arguments(env_id, variant)).unwrapped,
        lambda num_envs, autoreset_mode: make_vec(env_id, num_envs, autoreset_mode, variant),
        batch_sizes=batch_sizes,
        stochastic=(env_id, variant) not in DETERMINISTIC,
    )


@ANY_ENV
def test_stable_baselines3_checks_every_environment_without_a_warning(env_id):
    from stable_baselines3.common.env_checker import check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id, **arguments(env_id)).unwrapped, warn=True)


@ANY_ENV
def test_gymnasium_makes_one_environment_with_its_checks_on(env_id):
    env = gym.make(f"{MODULE_PREFIX}{env_id}", **arguments(env_id))
    env.reset(seed=0)
    for _ in range(EPISODE_STEPS):
        *_, truncated, _ = env.step(env.action_space.sample())
    assert truncated


@ANY_ENV
def test_gymnasium_makes_the_native_batch(env_id):
    envs = gym.make_vec(f"{MODULE_PREFIX}{env_id}", num_envs=5, vectorization_mode="vector_entry_point", **arguments(env_id))
    assert type(envs.unwrapped) is type(make_vec(env_id, 5))
    assert envs.reset(seed=0)[0].shape == (5, *envs.single_observation_space.shape)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


@ANY_ENV
def test_the_native_batch_agrees_with_gymnasiums_own_vectorisation_in_every_autoreset_mode(env_id):
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        ours = make_vec(env_id, 3, mode)
        theirs = gym.vector.SyncVectorEnv([lambda: gym.make(env_id, **arguments(env_id)).unwrapped] * 3, autoreset_mode=mode)
        np.testing.assert_array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
        ours.action_space.seed(0)
        for _ in range(2 * EPISODE_STEPS + 5):
            action = ours.action_space.sample()
            (*a, info), (*b, their_info) = ours.step(action), theirs.step(action)
            for x, y in zip(a, b, strict=True):
                np.testing.assert_array_equal(x, y)
            # Where nobody stepped, gymnasium leaves a column out; ours is there with a mask that is false everywhere.
            for name in (n for n in their_info if not n.startswith(("_", "final"))):
                np.testing.assert_array_equal(info[f"_{name}"], their_info[f"_{name}"], err_msg=name)
                np.testing.assert_array_equal(info[name], their_info[name], err_msg=name)
            for name in (n for n in info if n.startswith("_") and n not in their_info):
                assert not info[name].any()
            for i in np.flatnonzero(their_info.get("_final_obs", np.zeros(3, bool))):
                np.testing.assert_array_equal(info["final_obs"][i], their_info["final_obs"][i])
                for name, column in their_info["final_info"].items():
                    np.testing.assert_array_equal(info["final_info"][name][i], column[i])


@ANY_ENV
def test_the_step_after_an_end_only_resets_ignores_the_action_and_rewards_nothing(env_id):
    envs = make_vec(env_id, 4)
    envs.reset(seed=0)
    actions = np.zeros(4, dtype=np.int64)
    for _ in range(EPISODE_STEPS):
        *_, truncated, info = envs.step(actions)
    assert truncated.all()
    assert all(info[name].all() for name in info if name.startswith("_"))
    _, reward, terminated, truncated, info = envs.step(actions)
    assert not np.concatenate([reward, terminated, truncated, *info.values()]).any()


@ANY_ENV
def test_stepping_before_a_reset_is_refused(env_id):
    with pytest.raises(gym.error.ResetNeeded):
        ENVS[env_id].maker()(**arguments(env_id)).step(0)
    with pytest.raises(gym.error.ResetNeeded):
        make_vec(env_id, 2).step(np.zeros(2, dtype=np.int64))
    with pytest.raises(gym.error.ResetNeeded):
        make_vec(env_id, 2, AutoresetMode.DISABLED).reset(options={"reset_mask": np.array([True, False])})


@ANY_SCALING_ENV
def test_commanding_targets_before_a_reset_is_refused(env_id):
    single, batch = ENVS[env_id].maker()(**arguments(env_id)), make_vec(env_id, 2)
    with pytest.raises(gym.error.ResetNeeded):
        single.step_targets(3)
    with pytest.raises(gym.error.ResetNeeded):
        batch.step_targets(np.array([3, 3]))


@ANY_SCALING_ENV
def test_a_target_and_the_action_that_names_it_are_the_same_step(env_id):
    by_action, by_target = make_vec(env_id, 6), make_vec(env_id, 6)
    by_action.reset(seed=1)
    by_target.reset(seed=1)
    by_action.action_space.seed(1)
    table = MoveTable(Move(a.kind, a.size) for a in ENVS[env_id].describe().actions)
    for _ in range(EPISODE_STEPS + 4):
        action = by_action.action_space.sample()
        batch = by_target.batch
        total = batch.state.total if env_id == AUTOSCALE else batch.total_replicas
        target = table.targets(action, total.astype(np.float64))
        for x, y in zip(by_action.step(action)[:4], by_target.step_targets(target)[:4], strict=True):
            np.testing.assert_array_equal(x, y)


@ANY_SCALING_ENV
@pytest.mark.parametrize("targets", [[1.0], [1.0, np.nan], [[1.0, 2.0]]])
def test_unfit_targets_are_refused(env_id, targets):
    envs = make_vec(env_id, 2)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"^desired_replicas: .*allowed: \(2,\) numbers"):
        envs.step_targets(np.array(targets))


@ANY_ENV
@pytest.mark.parametrize("actions", [[0, 99], [-1, 0], [0], [0.0, 1.0]])
def test_unfit_actions_are_refused(env_id, actions):
    envs = make_vec(env_id, 2)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"^actions: .*allowed: "):
        envs.step(np.array(actions))


@ANY_ENV
def test_what_it_says_of_itself_fits_its_spaces(env_id):
    env, described = ENVS[env_id].maker()(**arguments(env_id)), ENVS[env_id].describe()
    assert described.env_id == env_id
    assert described.reward
    assert described.end
    assert env.action_space.n == len(described.actions)
    lows, highs = ([getattr(f, end) for f in described.fields] for end in ("low", "high"))
    if isinstance(env.observation_space, gym.spaces.Discrete):
        assert (lows, highs) == ([0], [env.observation_space.n - 1])
    else:
        np.testing.assert_array_equal(env.observation_space.low, np.array(lows, dtype=np.float32))
        np.testing.assert_array_equal(env.observation_space.high, np.array(highs, dtype=np.float32))
    assert len({f.name for f in described.fields}) == len(described.fields)
    assert all(f.unit and f.description for f in described.fields)
    observation, _ = env.reset(seed=0)
    row = np.atleast_1d(observation).astype(np.float64)
    for name, signal in described.signals.items():
        value = signal(lambda field: row[[f.name for f in described.fields].index(field)][None])
        assert value.shape == (1,), name
        assert np.isfinite(value).all(), name


@ANY_ENV
def test_it_draws_itself_as_text_and_as_a_picture(env_id):
    maker = ENVS[env_id].maker()
    text, picture = (maker(render_mode=mode, **arguments(env_id)) for mode in ("ansi", "rgb_array"))
    for env in (text, picture):
        env.reset(seed=0)
        for _ in range(5):
            env.step(env.action_space.sample())
    assert len(text.render().strip()) > 5
    image = picture.render()
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 3


@ANY_ENV
def test_a_partial_reset_reseeds_only_the_environments_it_names(env_id):
    envs = make_vec(env_id, 3, AutoresetMode.DISABLED)
    envs.reset(seed=0)
    mask = np.array([True, False, False])
    first, _ = envs.reset(seed=50, options={"reset_mask": mask})
    np.testing.assert_array_equal(first[0], make_vec(env_id, 1).reset(seed=50)[0][0])
    second = envs.reset()[0]
    untouched = make_vec(env_id, 3)
    untouched.reset(seed=0)
    np.testing.assert_array_equal(second[1:], untouched.reset()[0][1:])


@ANY_ENV
@pytest.mark.parametrize(("seed", "message"), [(-1, "negative"), ([1, 2], "2 given for 3"), ([1, None, -4], "negative")])
def test_unfit_seeds_are_refused(env_id, seed, message):
    with pytest.raises(ValueError, match=f"^seed: .*{message}"):
        make_vec(env_id, 3).reset(seed=seed)


@ANY_ENV
@pytest.mark.parametrize("mask", [np.array([True]), np.array([1, 0, 1]), [True, False]])
def test_an_unfit_reset_mask_is_refused(env_id, mask):
    envs = make_vec(env_id, 3, AutoresetMode.DISABLED)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"^reset_mask: .* allowed: bool \(3,\)"):
        envs.reset(options={"reset_mask": mask})


@pytest.mark.parametrize(("env_id", "variant"), [case for case in CASES if case not in DETERMINISTIC])
def test_unseeded_environments_differ_from_each_other_and_from_run_to_run(env_id, variant):
    seen = []
    for _ in range(2):
        envs = make_vec(env_id, 2, variant=variant)
        steps = [envs.reset()[0]] + [envs.step(np.ones(2, dtype=np.int64))[0] for _ in range(8)]
        seen += [np.stack(steps)[:, i].tobytes() for i in range(2)]
    assert len(set(seen)) == 4


@ANY_ENV
def test_making_and_stepping_an_environment_loads_neither_ray_nor_torch(env_id):
    code = (
        "import sys, gymnasium\n"
        f"env = gymnasium.make('{MODULE_PREFIX}{env_id}')\n"
        "env.reset(seed=0); env.step(0)\n"
        "print(sorted({'ray', 'torch', 'onnxruntime', 'pydantic', 'yaml', 'scalepilot'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert answer.stdout.strip() == "[]"


def test_ids_are_versioned_and_found_with_or_without_their_prefixes():
    for env_id in ENVS:
        short = env_id.split("/")[1]
        assert short.rsplit("-v", 1)[1].isdigit()
        assert find_env(env_id) is find_env(short) is find_env(f"{MODULE_PREFIX}{env_id}")


def test_a_duplicate_id_is_refused_and_registering_twice_changes_nothing():
    entry = next(iter(ENVS.values()))
    with pytest.raises(ValueError, match="is registered already"):
        add_env(EnvEntry(entry.env_id, "a:b", "a:b", "twice"))
    before = gym.registry[entry.env_id]
    register_envs()
    assert gym.registry[entry.env_id] is before


@pytest.mark.parametrize("name", ["Autoscal-v0", "scalepilot/Autoscale-v1", "autoscale"])
def test_an_unknown_id_is_refused_with_the_nearest_one(name):
    with pytest.raises(ValueError, match="did you mean Autoscale-v0"):
        find_env(name)


class Walk(gym.Env):
    """A small environment of someone else's; `fault` breaks one promise."""

    def __init__(self, fault=None):
        self.observation_space = gym.spaces.Box(-1e3, 1e3, (2,), np.float64)
        self.action_space = gym.spaces.Discrete(3)
        self.fault = fault

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = self.np_random.normal(size=2) if self.fault != "blind" else np.zeros(2), 0
        return self.at.copy(), {}

    def step(self, action):
        generator = np.random.default_rng() if self.fault == "unseeded" else self.np_random
        self.at = self.at + (0 if self.fault == "blind" else generator.normal(size=2)) + action
        self.steps += 1
        seen = self.at + (1e4 if self.fault == "escapes" and self.steps == 3 else 0)
        reward = float("nan") if self.fault == "nan" and self.steps == 4 else float(-abs(self.at[0]))
        return seen, reward, False, self.steps >= (10**6 if self.fault == "endless" else 10), {"at": float(self.at[0])}


class UncopyableWalk(Walk):
    def __deepcopy__(self, memo):
        other = Walk()
        other.reset(seed=12345)
        return other


class DriftingVec(gym.vector.SyncVectorEnv):
    """Native batches that differ from single environments in their second row."""

    def step(self, actions):
        observation, reward, *rest = super().step(actions)
        observation[1:] += 1e-9
        return observation, reward, *rest


def sync(env_type=Walk, vec_type=gym.vector.SyncVectorEnv, fault=None):
    return lambda num_envs, autoreset_mode: vec_type([lambda: env_type(fault)] * num_envs, autoreset_mode=autoreset_mode)


def test_the_contract_accepts_an_environment_of_someone_elses():
    check_scaling_env(Walk, sync(), num_steps=32, batch_sizes=(1, 3))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("unseeded", "Deterministic step observations are not equivalent"),
        ("blind", "two seeds observe the same"),
        ("escapes", "outside its space"),
        ("nan", "not finite|NaN"),
        ("endless", "no episode ends"),
    ],
)
def test_the_contract_notices_a_broken_environment(fault, message):
    with pytest.raises((ContractError, AssertionError, UserWarning), match=message):
        check_scaling_env(lambda: Walk(fault), sync(fault=fault), num_steps=32, batch_sizes=(1, 3))


def test_the_contract_notices_a_batch_that_differs_from_single_environments():
    with pytest.raises(ContractError, match="environment 1 of 3 against a single one: observation differs at step 1"):
        check_scaling_env(Walk, sync(vec_type=DriftingVec), num_steps=32, batch_sizes=(1, 3))


def test_the_contract_notices_a_copy_that_goes_its_own_way():
    with pytest.raises(ContractError, match="deepcopy: a copy made mid-episode goes on differently"):
        check_scaling_env(UncopyableWalk, sync(UncopyableWalk), num_steps=32, batch_sizes=(1, 3))
