"""The documented metrics of a run: the columns of progress.csv and metrics.parquet, and TensorBoard's scalars.

`python -m scalepilot.runs.metrics` prints docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scalepilot.config.algorithms import ALGORITHMS
from scalepilot.errors import ConfigError
from scalepilot_envs.episode_metrics import MEANINGS

ALL = "all"
_OF_EPISODES = ("env_failures", "observations_outside_share", "rewards_clipped_share")
_OF_PROCESSES = ("env_runner_restarts", "lost_rollouts", "learner_restarts")


@dataclass(frozen=True)
class Metric:
    """One column.

    Attributes:
        name: stable.
        unit: 1 where it has none.
        meaning: one sentence without its full stop.
        algorithms: that have it, or environments in the case of the environments' own.
        repeatable: two runs with the same seed have the same values; false for times and loads.
    """

    name: str
    unit: str
    meaning: str
    algorithms: str = ALL
    repeatable: bool = True

    @property
    def group(self) -> str:
        """What it is of, as TensorBoard groups it: evaluation, train, learner, time or system."""
        if self.name.startswith("validation_"):
            return "evaluation"
        if self.name.startswith(("train_", "episode_")) or self.name in _OF_EPISODES:
            return "train"
        if self.unit in ("s", "transitions/s") or self.name in ("iteration", "env_steps"):
            return "time"
        return "system" if self.unit in ("%", "MB") or self.name in _OF_PROCESSES else "learner"


def episode_column(name: str) -> str:
    """The column of an environment's own metric."""
    return f"episode_{name}_mean"


def _learnt(name: str, unit: str, meaning: str, where: str = "", *, repeatable: bool = True) -> Metric:
    """A column that some algorithms have: those whose records name it."""
    found = ", ".join(a.name for a in ALGORITHMS.values() if name in (*a.metrics, *a.own_metrics))
    return Metric(name, unit, meaning, found + where, repeatable)


def _own(taken: set[str]) -> Iterator[Metric]:
    """The columns of algorithms that bring their own.

    Raises:
        ConfigError: one has the name of another column.
    """
    found: dict[str, tuple[str, str]] = {}
    for algorithm in ALGORITHMS.values():
        for name, about in algorithm.own_metrics.items():
            if name in taken or found.setdefault(name, about) != about:
                raise ConfigError(f"algorithm: {algorithm.name} measures {name}, which means something else already")
    for name, (unit, meaning) in found.items():
        yield _learnt(name, unit, meaning)


_COMMON = (
    Metric("iteration", "1", "rounds of sampling and learning so far"),
    Metric("env_steps", "transitions", "transitions sampled so far"),
    Metric("time_seconds", "s", "time in training so far, with validation, without checkpoints and videos", repeatable=False),
    Metric("steps_per_second", "transitions/s", "of this iteration: sampling and learning, without validation", repeatable=False),
    Metric(
        "validation_J_per_hour", "currency/h", "cost on the validation windows (protocol v1), where validated", "Autoscale-v0"
    ),
    Metric("train_J_per_hour", "currency/h", "cost of the training episodes that ended in this iteration", "Autoscale-v0"),
    Metric("validation_return", "reward", "mean return of the validation episodes, where validated", "every other environment"),
    Metric("episode_return_mean", "reward", "mean return of the training episodes that ended in this iteration"),
    Metric("episode_length_mean", "steps", "their mean length"),
    *(Metric(episode_column(name), unit, meaning, environments) for name, (unit, meaning, environments) in MEANINGS.items()),
    _learnt("policy_loss", "1", "clipped surrogate of the last minibatch"),
    _learnt("value_loss", "1", "squared error of the value network on the last minibatch"),
    _learnt("explained_variance", "1", "share of the returns' variance that the value network explains"),
    _learnt("entropy", "nat", "of the policy's distribution over actions"),
    _learnt("kl", "nat", "divergence of the policy from the one that sampled"),
    _learnt("clip", "1", "of the probability ratio, by its schedule"),
    _learnt("epochs", "1", "passes over the rollout; fewer than asked for where the divergence ended them"),
    _learnt("q_loss", "1", "mean error of the Q-values over this iteration's updates (tabular: absolute TD error)"),
    _learnt("q_mean", "reward", "mean Q-value of what was last learnt from"),
    _learnt("epsilon", "share", "of random actions"),
    _learnt("reward_scale", "reward", "rewards are divided by this before learning"),
    _learnt("value_clipped_share", "share", "of this iteration's value errors, those cut by value_clip"),
    _learnt("grad_clipped_share", "share", "of this iteration's gradients, those cut by grad_clip"),
    _learnt("features_clamped_share", "share", "of this iteration's normalised features, those cut at 8 in size"),
    _learnt("active_traces", "1", "traces above the threshold, mean over steps and environments"),
    _learnt("largest_trace", "1", "largest trace of the iteration"),
    _learnt("gradient_updates", "1", "gradient steps so far"),
    _learnt("learning_rate", "1", "of the optimiser"),
    _learnt("env_runner_restarts", "1", "env runners that came back in this iteration"),
    Metric("env_failures", "1", "episodes that failed in this iteration: the environment raised, or gave what is no number"),
    Metric(
        "observations_outside_share",
        "share",
        "of this iteration's observations outside the declared bounds, of the field with most",
    ),
    Metric("rewards_clipped_share", "share", "of this iteration's rewards, those cut by reward_clip before learning"),
    _learnt("lost_rollouts", "1", "rollouts lost with their process or node in this iteration and sampled again"),
    Metric("learner_restarts", "1", "times a learner died and training went on from the newest checkpoint, since the last row"),
    _learnt("sample_seconds", "s", "of this iteration spent sampling", repeatable=False),
    _learnt("learn_seconds", "s", "of this iteration spent learning", repeatable=False),
    _learnt(
        "transfer_seconds",
        "s",
        "of this iteration spent moving rollouts: into the object store of the slowest env runner's node, and out of it to the"
        " learner",
        ", with env runners or learners apart",
        repeatable=False,
    ),
    _learnt("sync_seconds", "s", "of this iteration spent handing the weights to the env runners", repeatable=False),
    Metric("cpu_percent", "%", "CPU time of the process tree since the last value; 100 is one core", repeatable=False),
    Metric(
        "memory_megabytes", "MB", "resident memory of the process tree, shared pages counted in each process", repeatable=False
    ),
    Metric("gpu_percent", "%", "utilisation of the busiest GPU, where nvidia-ml-py is installed", repeatable=False),
    Metric("gpu_memory_megabytes", "MB", "memory in use on all GPUs together, likewise", repeatable=False),
)
TABLE = (*_COMMON, *_own({metric.name for metric in _COMMON}))
METRICS = tuple(metric.name for metric in TABLE)
# Name → TensorBoard's tag.
TAGS = {metric.name: f"{metric.group}/{metric.name}" for metric in TABLE}
# They differ between runs with the same seed.
TIME_COLUMNS = tuple(metric.name for metric in TABLE if not metric.repeatable)


def markdown() -> str:
    """docs/metrics.md."""
    rows = [f"| `{m.name}` | {m.group} | {m.unit} | {m.meaning} | {m.algorithms} |" for m in TABLE]
    return "\n".join([_HEAD, *rows, _FOOT])


_HEAD = """\
# Metrics of a run

Generated by `python -m scalepilot.runs.metrics`; a test holds this page to the code.

Every run writes the same columns in the same order, one row an iteration: `progress.csv` while it trains, `metrics.parquet` in
the end (64-bit floats), and the same names behind their group (`learner/policy_loss`) as scalars in `tensorboard/`; a run that
was begun without groups goes on without them. What was not measured in an iteration is absent (empty, null): no
episode ended, no validation was due, the algorithm has no such thing. It is never NaN and never a made-up zero.

| name | group | unit | meaning | algorithms or environments |
|---|---|---|---|---|"""

_FOOT = """
Rows of the same seed are equal but for times and loads (units s, transitions/s, %, MB). CPU, memory and GPU are looked at every
five seconds.

A resumed run continues its files: rows after the checkpoint it goes on from are removed first, since those iterations run again.

An environment of your own has its columns when its class names them in
`metadata = {"episode_metrics": {"moves": EpisodeMetric("change", "changes"), …}}`, with the names above
(`scalepilot_envs.episode_metrics`); a vector environment must then give these columns in its infos at every step.
"""


if __name__ == "__main__":
    print(markdown(), end="")
