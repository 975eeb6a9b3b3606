"""Episodes: policies × workloads × seeds, in batches; and what they would cost at best."""

from scalepilot.simulate.episodes import EpisodeResults, EpisodeSet, Playback, poisson_episodes, run_episodes
from scalepilot.simulate.optimum import Optimum, OptimumCache, PlannedTargets, autoscale_optimum
from scalepilot.simulate.protocol import ProtocolData, protocol_v1
from scalepilot.simulate.returns import EpisodeReturns, as_rows, run_returns

__all__ = [
    "EpisodeResults",
    "EpisodeReturns",
    "EpisodeSet",
    "Optimum",
    "OptimumCache",
    "PlannedTargets",
    "Playback",
    "ProtocolData",
    "as_rows",
    "autoscale_optimum",
    "poisson_episodes",
    "protocol_v1",
    "run_episodes",
    "run_returns",
]
