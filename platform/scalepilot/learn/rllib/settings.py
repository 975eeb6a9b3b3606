"""What our env runners and learners must know beside RLlib's own configuration, as one typed value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from scalepilot.config.running import ResourcesConfig
from scalepilot.config.sections import NetworkConfig

# RLlib keeps settings that it does not know in its `learner_config_dict`; ours are all under this key.
_KEY = "scalepilot"
_Learning = TypeVar("_Learning", bound=NetworkConfig)


@dataclass(frozen=True)
class EngineSettings:
    """Settings of an engine.

    Attributes:
        learning: the experiment's hyperparameters, of all learners together.
        resources: its resources.
        device: that learns, `auto` decided.
    """

    learning: NetworkConfig
    resources: ResourcesConfig
    device: str

    def to_rllib(self) -> dict[str, Any]:
        """As the `learner_config_dict` of RLlib's configuration."""
        return {_KEY: self}

    @classmethod
    def of(cls, config: Any) -> EngineSettings:
        """What `to_rllib` put into a configuration of RLlib's.

        Raises:
            TypeError: it holds something else, or more.
        """
        given = config.learner_config_dict
        if given.keys() != {_KEY} or not isinstance(given[_KEY], cls):
            raise TypeError(f"learner_config_dict: {sorted(given)} is not allowed; allowed: EngineSettings alone")
        settings: EngineSettings = given[_KEY]
        return settings


def learning_of(config: Any, kind: type[_Learning]) -> _Learning:
    """The hyperparameters in a configuration of RLlib's.

    Raises:
        TypeError: they are another algorithm's.
    """
    learning = EngineSettings.of(config).learning
    if not isinstance(learning, kind):
        raise TypeError(f"hyperparameters: {type(learning).__name__} is not allowed; allowed: {kind.__name__}")
    return learning
