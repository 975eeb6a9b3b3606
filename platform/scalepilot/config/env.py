"""Which environment, and what it is made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar

from scalepilot.config.checks import Between, Section
from scalepilot.files.ownership import check_listed_modules, check_module
from scalepilot_envs.autoscale import AutoscaleParams, Randomisation
from scalepilot_envs.description import EnvDescription
from scalepilot_envs.flat_env import wrapper_names
from scalepilot_envs.objective import Objective
from scalepilot_envs.registration import MODULE_PREFIX, NAMESPACE, find_env, is_own, split_id
from scalepilot_envs.workloads import Workload

AUTOSCALE = "Autoscale-v0"
# Where the environments are that this package adds to those of `scalepilot_envs`: they lie above the configuration.
_MODULES = {"LiveScaling-v0": "scalepilot.operate.live"}


@dataclass(frozen=True)
class EnvConfig(Section):
    """Autoscale-v0, and its physical constants.

    Attributes:
        id: Autoscale-v0.
        params: see `AutoscaleParams`.
        randomisation: drawn again each training episode, off in evaluation.
        episode_steps: steps of a training episode.
    """

    id: str = AUTOSCALE
    params: AutoscaleParams = field(default_factory=AutoscaleParams)
    randomisation: Randomisation = field(default_factory=Randomisation)
    episode_steps: Annotated[int, Between(1, 10_000_000)] = 1920

    # Its traffic is a section of its own, `workload`.
    takes_workload: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if env_tag(self) != "autoscale":
            raise ValueError(f"id: {self.id!r} is not allowed here; allowed: {AUTOSCALE}")
        super().__post_init__()

    @property
    def description(self) -> EnvDescription:
        """Its fields and actions."""
        return find_env(AUTOSCALE).describe(asdict(self.params))

    @property
    def objective(self) -> Objective:
        """How its episodes are evaluated."""
        return self.description.objective()

    @property
    def arguments(self) -> dict[str, Any]:
        """What it is made with, but for its workload."""
        return {"params": self.params}

    def training_arguments(self, workload: Workload) -> dict[str, Any]:
        """What it is made with for training: the training part of the workload, randomised."""
        return {
            "workload": workload,
            "part": "train",
            "params": self.params,
            "randomisation": self.randomisation,
            "episode_steps": self.episode_steps,
        }

    def test_arguments(self, workload: Workload) -> dict[str, Any]:
        """What it is made with to look at: the test part of the workload, as it is."""
        return {**self.training_arguments(workload), "part": "test", "randomisation": Randomisation()}


@dataclass(frozen=True)
class OtherEnvConfig(Section):
    """Any other environment: one of ours (`scalepilot env list`) or one that gymnasium knows.

    Attributes:
        id: of the environment, such as QueueScaling-v0, CartPole-v1, or module:Id with what registers it; a module that
            SCALEPILOT_ENV_MODULES names is put in front, so that what is stored says itself what it needs.
        params: its physical constants (`scalepilot env show ID`); only ours have any.
        options: its other arguments, such as {workload: spike, random_phase: true}.
        wrappers: around an environment of others, the first one innermost: "module:Class", or {"module:Class": {name: value}}.
    """

    id: str
    params: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    wrappers: tuple[str | dict[str, Any], ...] = ()

    takes_workload: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.id in _MODULES:
            object.__setattr__(self, "id", f"{_MODULES[self.id]}:{self.id}")
        _check_modules(self.id, *wrapper_names(self.wrappers))
        try:
            entry = find_env(self.id)
        except ValueError as error:
            raise ValueError(str(error).replace("env: ", "id: ", 1)) from None
        if not is_own(entry.env_id) and entry.env_id.endswith(f":{self.id}"):
            object.__setattr__(self, "id", entry.env_id)
        if "wrappers" in self.options:
            raise ValueError("options.wrappers: is not allowed; allowed: wrappers, a key of env itself")
        if self.wrappers and is_own(entry.env_id):
            raise ValueError(f"wrappers: are not allowed around {entry.env_id}; allowed: around environments of others")
        try:
            wrapper_names(self.wrappers)
            _ = self.description
        except (TypeError, ValueError) as error:
            message = str(error)
            raise ValueError(
                message if message.startswith(("params.", "id: ", "wrappers.", "options.")) else f"params.{message}"
            ) from None
        # The environment itself says what is wrong with an option.
        try:
            entry.maker()(**self.arguments)
        except (TypeError, ValueError) as error:
            message = str(error)
            raise ValueError(message if message.startswith("options.") else f"options: {message}") from None

    @property
    def description(self) -> EnvDescription:
        """Its fields and actions."""
        return find_env(self.id).describe(self.params, **self._others)

    @property
    def objective(self) -> Objective:
        """How its episodes are evaluated."""
        return self.description.objective(self.arguments)

    def training_arguments(self, workload: Workload) -> dict[str, Any]:
        """What it is made with for training: its own arguments."""
        return self.arguments

    def test_arguments(self, workload: Workload) -> dict[str, Any]:
        """What it is made with to look at: the same."""
        return self.arguments

    @property
    def arguments(self) -> dict[str, Any]:
        """What it is made with."""
        return {**({"params": self.params} if self.params else {}), **self._others}

    @property
    def _others(self) -> dict[str, Any]:
        # Plain lists, as they come back from a stored policy.
        return {**self.options, **({"wrappers": list(self.wrappers)} if self.wrappers else {})}


def _check_modules(*names: str) -> None:
    """Refuse to import what another user could change."""
    check_listed_modules()
    for module, colon, _ in (name.partition(":") for name in names):
        if colon and module:
            check_module(module, "env")


def env_tag(value: Any) -> str:
    """Which of the two sections `env` is, told by its id, with or without namespace and module prefix."""
    env_id = value.get("id", AUTOSCALE) if isinstance(value, Mapping) else getattr(value, "id", AUTOSCALE)
    return "autoscale" if str(env_id).removeprefix(MODULE_PREFIX).removeprefix(f"{NAMESPACE}/") == AUTOSCALE else "other"


def is_live(stored: Any) -> bool:
    """Whether a stored experiment's environment is live: not the one that its policy is for, and its files may be elsewhere."""
    env = stored.get("env") if isinstance(stored, Mapping) else None
    env_id = env.get("id") if isinstance(env, Mapping) else None
    return isinstance(env_id, str) and split_id(env_id)[1] in _MODULES


ENV_TAGS = {"autoscale": EnvConfig, "other": OtherEnvConfig}
