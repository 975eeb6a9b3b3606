"""What LiveScaling-v0 takes beside the parameters of the environment that it stands in for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import TypeAdapter

from scalepilot.config import checked
from scalepilot.config.checks import Between, Count, Section
from scalepilot.config.schema import Described
from scalepilot.operate.live.tasks import TaskOptions


@dataclass(frozen=True)
class LiveOptions(Section):
    """`env.options` of LiveScaling-v0.

    Attributes:
        config: an operate.yaml: its `telemetry`, `target`, `limits`, `fallback`, `assume` and `records` are used.
        like: the environment whose fields, actions and reward it has: Autoscale-v0, ClusterDeployment-v0 or
            FunctionWorkflow-v0.
        explore_on: name of the target that may be explored on, such as "deployment shop/web"; without it no step is taken.
        episode_steps: steps of an episode; null for as many as that environment has.
        wait_intervals: further moments for which a step waits while what it has brought is unknown.
        tasks: in place of FunctionWorkflow-v0: put the tasks of each episode into the queue; null where they come by themselves.
        pace: the deployment's seconds in a second of the wall. Other than 1 for a rehearsal with time-scaled workers, whose clock
            is then the machine's monotonic one times this.
    """

    config: str = ""
    like: str = "Autoscale-v0"
    explore_on: str | None = None
    episode_steps: Count | None = None
    wait_intervals: Annotated[int, Between(0, 1000)] = 3
    tasks: TaskOptions | None = None
    pace: Annotated[float, Between(0, 1000, above=True)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.config:
            raise ValueError("config: none given; allowed: an operate.yaml with telemetry and target (docs/live-training.md)")


_OPTIONS: TypeAdapter[LiveOptions] = TypeAdapter(LiveOptions)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of these options."""
    return _OPTIONS.json_schema(schema_generator=Described)


def live_options(values: Mapping[str, Any]) -> LiveOptions:
    """The options as typed data.

    Raises:
        ConfigError: a key or value that is not allowed.
    """
    return checked(LiveOptions, _OPTIONS, dict(values), "options")
