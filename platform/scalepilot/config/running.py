"""Where an experiment runs, and how it is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from scalepilot.config.checks import Between, OneOf, PositiveShare, Section

_MOST_PROCESSES_HERE = 1024
DEVICES = ("auto", "cuda", "mps", "cpu")


@dataclass(frozen=True)
class ResourcesConfig(Section):
    """Where training runs.

    Attributes:
        num_env_runners: parallel env-runner processes; 0 steps the environments in the trainer's own process.
        address: of a Ray cluster ("ray://…", "auto"); null starts a local one.
        num_learners: learner processes in step, each with its share of every batch and minibatch; 0 learns in the trainer's own.
        device: that learns: auto (CUDA where there is one, else the CPU), cuda, mps (Apple, only by choice) or cpu; asked for and
            missing is an error.
        num_gpus_per_learner: GPUs each learner gets, 1 on CUDA if 0; asked for and missing is an error.
        env_timeout_seconds: an environment that takes longer for one rollout hangs: its env runner is restarted, and the run
            ends where it hangs again or has no env runners.
        torch_threads: of each learner; null for the number of cores. More than one is a sixth faster on a quiet machine, and two
            such trainings at once all but stop each other: waiting threads spin.
        dashboard: start Ray's dashboard with a local Ray; its address is printed, as a cluster's is.
    """

    num_env_runners: Annotated[int, Between(0, 100_000)] = 0
    address: str | None = None
    num_learners: Annotated[int, Between(0, 1000)] = 0
    device: Annotated[str, OneOf(DEVICES)] = "auto"
    num_gpus_per_learner: Annotated[float, Between(0, 64)] = 0
    env_timeout_seconds: Annotated[float, Between(0, 1e6, above=True)] = 300.0
    torch_threads: Annotated[int, Between(1, 1024)] | None = 1
    dashboard: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.address is None and self.num_env_runners + self.num_learners > _MOST_PROCESSES_HERE:
            raise ValueError(
                f"num_env_runners: {self.num_env_runners} and num_learners: {self.num_learners} are more processes than one"
                f" machine runs; allowed: up to {_MOST_PROCESSES_HERE} without address"
            )
        if self.num_gpus_per_learner and self.device in ("cpu", "mps"):
            raise ValueError(
                f"num_gpus_per_learner: {self.num_gpus_per_learner:g} does not go with device {self.device}; allowed: 0"
            )
        if self.device == "mps" and self.num_learners > 1:
            raise ValueError(f"num_learners: {self.num_learners} does not go with device mps; allowed: 0 or 1")


@dataclass(frozen=True)
class CheckpointsConfig(Section):
    """What a stopped or killed run goes on from.

    Attributes:
        every_share: of the budget, between two checkpoints: what a killed run loses at most.
        num_to_keep: the newest stay, older ones are removed.
    """

    every_share: PositiveShare = 0.1
    num_to_keep: Annotated[int, Between(1, 10_000)] = 2


@dataclass(frozen=True)
class TrackingConfig(Section):
    """Services that keep metrics of many runs, beside TensorBoard.

    Attributes:
        wandb_project: of Weights & Biases (`pip install wandb`); null for none.
        mlflow_experiment: of MLflow (`pip install mlflow`); null for none.
        plot_decisions: of a live run: plots are drawn again after so many decisions; 0 for none.
    """

    wandb_project: str | None = None
    mlflow_experiment: str | None = None
    plot_decisions: Annotated[int, Between(0, 1_000_000)] = 100


@dataclass(frozen=True)
class EvaluationConfig(Section):
    """Protocol v1 and what is compared under it.

    Attributes:
        window_steps: steps of a validation or test window (1,920 of 15 s are 8 hours).
        drawn_windows: training and validation windows drawn.
        test_seeds: arrival seeds of the test windows.
        baselines: rules to compare against on Autoscale, named as `compare --baseline` names them; the HPA with default settings
            always takes part.
        tuning_evaluations: random-search evaluations of each tuned rule; the HPA's are shared equally by its metrics.
        validate_every_share: of the budget, between two validations (0.02 = 50 validations a run).
        bootstrap_samples: resamples behind the intervals.
        optimum: also compare with the clairvoyant optimum (a second or two an episode).
        validation_episodes: of environments other than Autoscale, each validation.
        test_episodes: likewise, in the end.
        max_episode_steps: an episode of validation or test that has not ended by then ends the run, naming the environment; one
            with a limit of its own may be longer (`env.options.max_episode_steps` gives it one, in training too).
        videos: of a greedy episode during training, spread over the budget, where the environment can be drawn; one of the
            kept policy comes on top, and 0 makes none at all.
    """

    window_steps: Annotated[int, Between(2, 1_000_000)] = 1920
    drawn_windows: Annotated[int, Between(1, 10_000)] = 24
    test_seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    baselines: tuple[str, ...] = ("hpa-tuned",)
    tuning_evaluations: Annotated[int, Between(2, 1_000_000)] = 400
    validate_every_share: PositiveShare = 0.02
    bootstrap_samples: Annotated[int, Between(10, 1_000_000)] = 2000
    optimum: bool = True
    validation_episodes: Annotated[int, Between(1, 100_000)] = 64
    test_episodes: Annotated[int, Between(2, 100_000)] = 200
    max_episode_steps: Annotated[int, Between(1, 1e9)] = 10_000
    videos: Annotated[int, Between(0, 1000)] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.test_seeds:
            raise ValueError("test_seeds: is empty; allowed: at least one seed")
