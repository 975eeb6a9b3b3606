"""Where policies are run and evaluated: an environment, its validation and test episodes, and what rules may be tuned on."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot.config import EnvConfig, ExperimentConfig
from scalepilot.policy import Planner, Policy
from scalepilot.simulate.episode_runner import Actor, EpisodeLimits, run_returns
from scalepilot.simulate.episodes import EpisodeIndex, EpisodeResults, EpisodeSet, Playback, run_episodes
from scalepilot.simulate.protocol import ProtocolData
from scalepilot.simulate.step_log import StepLog, StepRecorder, step_columns
from scalepilot.simulate.workload_data import load_data, workload_name
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.description import describe as describe_autoscale
from scalepilot_envs.description import EnvDescription
from scalepilot_envs.flat_env import wrapper_names
from scalepilot_envs.objective import Objective
from scalepilot_envs.registration import find_env, split_id

# First seeds of validation and test episodes; training draws its own from all of 32 bits.
VALIDATION_SEED, TEST_SEED = 1_000_000, 2_000_000
# Of Autoscale's fresh arrivals; elsewhere what is added to the first seed.
FRESH_SEED = 500_000
AnyActor = Policy | Planner | Actor


@dataclass(frozen=True)
class CellResult:
    """What came of a policy's episodes.

    Attributes:
        results: one row an episode.
        playback: the episode asked for.
        steps: name → (rows,) a row a step, where asked for.
    """

    results: EpisodeResults
    playback: Playback | None = None
    steps: Mapping[str, NDArray[Any]] | None = None


class Compared(Protocol):
    """What a comparison must know of its episodes; `EpisodeSet` tells it, too."""

    @property
    def index(self) -> EpisodeIndex:
        """Which ones they are."""
        ...

    @property
    def objective(self) -> Objective:
        """What decides."""
        ...

    @property
    def num_steps(self) -> int | None:
        """Steps of each; None where that depends."""
        ...

    @property
    def mean_and_peak_rps(self) -> tuple[float, float]:
        """Of the mean request rates; NaN where there are none."""
        ...


class Episodes(Compared, Protocol):
    """Episodes of one environment, the same for whoever runs through them."""

    @property
    def name(self) -> str:
        """What the workload is called, or the environment."""
        ...

    @property
    def playback_of(self) -> int | None:
        """The episode worth playing back."""
        ...

    def __len__(self) -> int: ...

    def first(self, count: int) -> Episodes:
        """So many of them, from the beginning."""
        ...

    def fresh(self) -> Episodes:
        """As many that nobody has met: other seeds, on the same windows where there are windows."""
        ...

    def run(self, actor: Any, *, playback: bool = False, step_log: bool = False) -> CellResult:
        """Run a policy or a plan through all of them; see `run_episodes` and `run_returns`.

        Args:
            actor: decides.
            playback: keep the steps of one episode where that can be shown.
            step_log: keep every step of every episode.

        Raises:
            InputError: the policy does not fit, or the environment fails.
        """
        ...

    def digest(self) -> str:
        """Changes with whatever decides how an episode goes, but for the policy and our own code."""
        ...

    def plan_digest(self, actor: Any) -> str:
        """The same of a plan for these episodes."""
        ...


@dataclass(frozen=True)
class TrafficEpisodes:
    """Windows of a workload through Autoscale-v0.

    Attributes:
        episodes: windows and arrivals.
        params: the service.
    """

    episodes: EpisodeSet
    params: AutoscaleParams

    @property
    def name(self) -> str:
        """The workload's."""
        return self.episodes.workload

    @property
    def index(self) -> EpisodeIndex:
        """Windows and seeds."""
        return self.episodes.index

    @property
    def objective(self) -> Objective:
        """Money an hour."""
        return describe_autoscale(self.params).objective()

    @property
    def num_steps(self) -> int | None:
        """Steps of a window."""
        return self.episodes.num_steps

    @property
    def mean_and_peak_rps(self) -> tuple[float, float]:
        """Of the windows' mean rates."""
        return self.episodes.mean_and_peak_rps

    @property
    def playback_of(self) -> int | None:
        """The one whose rate varies most."""
        rates = self.episodes.rates_rps[self.episodes.seed == self.episodes.seed[0]]
        return int(np.asarray(rates).std(axis=1).argmax())

    def __len__(self) -> int:
        return len(self.episodes)

    def first(self, count: int) -> TrafficEpisodes:
        """As `Episodes`."""
        return replace(self, episodes=self.episodes.at(np.arange(min(count, len(self)))))

    def fresh(self) -> TrafficEpisodes:
        """As `Episodes`."""
        return replace(self, episodes=self.episodes.redrawn(FRESH_SEED, self.params.interval_seconds))

    def run(self, actor: Any, *, playback: bool = False, step_log: bool = False) -> CellResult:
        """As `Episodes`."""
        log = StepLog(len(self), self.episodes.num_steps) if step_log else None
        shown = self.playback_of if playback else None
        results, kept = run_episodes(actor, self.episodes, self.params, playback_of=shown, on_step=log)
        return CellResult(results, kept, step_columns(self.episodes, self.params, log.steps) if log else None)

    def digest(self) -> str:
        """As `Episodes`."""
        digest = hashlib.sha256(json.dumps(asdict(self.params), sort_keys=True).encode())
        for column in fields(EpisodeSet)[1:]:
            digest.update(_bytes_of(getattr(self.episodes, column.name)))
        return digest.hexdigest()

    def plan_digest(self, actor: Planner) -> str:
        """As `Episodes`."""
        targets = actor.plan(self.episodes.rates_rps, self.params.replica_capacity_rps, self.params.startup_steps)
        return hashlib.sha256(_bytes_of(targets)).hexdigest()


@dataclass(frozen=True)
class SeededEpisodes:
    """Episodes of any other environment, each drawn from a seed of its own.

    Attributes:
        name: for tables.
        env_id, num_episodes, arguments, first_seed, limits: as `run_returns` takes them.
    """

    name: str
    env_id: str
    num_episodes: int
    arguments: Mapping[str, Any]
    first_seed: int = TEST_SEED
    limits: EpisodeLimits = field(default_factory=EpisodeLimits)

    @property
    def index(self) -> EpisodeIndex:
        """An episode is a window of its own."""
        numbers = np.arange(self.num_episodes)
        return EpisodeIndex(numbers, self.first_seed + numbers, np.full(self.num_episodes, np.nan))

    @property
    def objective(self) -> Objective:
        """What the environment says."""
        return find_env(self.env_id).describe(**self.arguments).objective(self.arguments)

    @property
    def num_steps(self) -> int | None:
        """An episode ends when it ends."""
        return None

    @property
    def mean_and_peak_rps(self) -> tuple[float, float]:
        """Unknown."""
        return np.nan, np.nan

    @property
    def playback_of(self) -> int | None:
        """None: what could be shown differs from environment to environment; see `scalepilot demo`."""
        return None

    def __len__(self) -> int:
        return self.num_episodes

    def first(self, count: int) -> SeededEpisodes:
        """As `Episodes`; their seeds go on as far as is wanted."""
        return replace(self, num_episodes=count)

    def fresh(self) -> SeededEpisodes:
        """As `Episodes`."""
        return replace(self, first_seed=self.first_seed + FRESH_SEED)

    def run(self, actor: Any, *, playback: bool = False, step_log: bool = False) -> CellResult:
        """As `Episodes`."""
        log = StepRecorder() if step_log else None
        where: dict[str, Any] = {"arguments": self.arguments, "first_seed": self.first_seed, "limits": self.limits}
        results = run_returns(actor, self.env_id, self.num_episodes, log=log, **where)
        return CellResult(results, None, log.columns() if log else None)

    def digest(self) -> str:
        """As `Episodes`; an environment of the user's own counts with the file that defines it."""
        digest = hashlib.sha256(json.dumps(asdict(replace(self, name="")), sort_keys=True, default=str).encode())
        digest.update(gym.__version__.encode())
        named = [self.env_id, *wrapper_names(self.arguments.get("wrappers", ()))]
        for module in filter(None, (split_id(name)[0] for name in named)):
            found = importlib.util.find_spec(module)
            if found is not None and found.origin and Path(found.origin).is_file():
                digest.update(Path(found.origin).read_bytes())
        return digest.hexdigest()

    def plan_digest(self, actor: Any) -> str:
        """As `Episodes`."""
        return hashlib.sha256(_bytes_of(actor.actions)).hexdigest()


@dataclass(frozen=True)
class Scenario:
    """One place to be trained for and evaluated on.

    Attributes:
        env: fields, actions, parameters, and how it is evaluated.
        validation: episodes that choose.
        num_validation: of `validation`, those that are shown; the others, of the training part, only steady the choice.
        test: episodes that nobody has seen.
        traffic: of Autoscale, what rules are tuned on; None elsewhere.
    """

    env: EnvDescription
    validation: Episodes
    num_validation: int
    test: Episodes
    traffic: ProtocolData | None = None

    @property
    def name(self) -> str:
        """For tables."""
        return self.test.name

    @property
    def objective(self) -> Objective:
        """What decides."""
        return self.test.objective

    @property
    def is_live(self) -> bool:
        """Whether every step acts on something real: episodes are then run one after the other."""
        return isinstance(self.test, SeededEpisodes) and find_env(self.test.env_id).is_live


def scenario_name(config: ExperimentConfig) -> str:
    """What an experiment's scenario is called in tables: its workload or its environment."""
    return workload_name(config) if config.env.takes_workload else find_env(config.env.id).env_id


def scenario_of(
    config: ExperimentConfig, *, name: str | None = None, windows: int | None = None, episodes: int | None = None
) -> Scenario:
    """What an experiment is trained for and evaluated on; the one place that knows Autoscale-v0 from other environments.

    Args:
        config: the experiment.
        name: for tables; the workload's or the environment's if None.
        windows: of Autoscale: test windows to keep, evenly spread; None for all.
        episodes: of any other environment: test episodes; the experiment's if None.

    Raises:
        InputError: a trace cannot be used, or is too short.
    """
    if isinstance(config.env, EnvConfig):
        return traffic_scenario(load_data(config), config.env.params, name=name or scenario_name(config), windows=windows)
    env, limits = config.env, EpisodeLimits(config.evaluation.max_episode_steps, config.resources.env_timeout_seconds)
    env_id = find_env(env.id).env_id
    validation, test = (
        SeededEpisodes(name or env_id, env_id, count, env.arguments, first_seed, limits)
        for count, first_seed in (
            (config.evaluation.validation_episodes, VALIDATION_SEED),
            (episodes or config.evaluation.test_episodes, TEST_SEED),
        )
    )
    return Scenario(env.description, validation, len(validation), test)


def traffic_scenario(
    data: ProtocolData, params: AutoscaleParams, *, name: str | None = None, windows: int | None = None
) -> Scenario:
    """The protocol's episodes of a workload through a service.

    Args:
        data: the protocol's episodes.
        params: the service.
        name: as `scenario_of`.
        windows: as `scenario_of`.
    """
    parts = {part: replace(getattr(data, part), workload=name or data.test.workload) for part in ("train", "validation", "test")}
    data = replace(data, **parts)
    data = replace(data, test=_spread(data.test, windows))
    # Few validation windows hold few of the rare hours that decide: the training windows, with arrivals of their own,
    # steady the choice.
    chosen_on = data.validation.joined(data.train)
    validation, test = TrafficEpisodes(chosen_on, params), TrafficEpisodes(data.test, params)
    return Scenario(describe_autoscale(params), validation, len(data.validation), test, data)


def _spread(test: EpisodeSet, windows: int | None) -> EpisodeSet:
    """So many of the windows, evenly spread; None for all."""
    have = len(np.unique(test.window))
    if windows is None or windows >= have:
        return test
    kept = np.unique(np.linspace(0, have - 1, windows).round().astype(np.int64))
    return test.at(np.isin(test.window, kept))


def _bytes_of(array: NDArray[Any]) -> bytes:
    return repr((array.shape, array.dtype.str)).encode() + np.ascontiguousarray(array).tobytes()
