"""Episodes: policies × workloads × seeds, in batches."""

from scalepilot.simulate.episodes import EpisodeResults, EpisodeSet, Playback, poisson_episodes, run_episodes
from scalepilot.simulate.protocol import ProtocolData, protocol_v1

__all__ = [
    "EpisodeResults",
    "EpisodeSet",
    "Playback",
    "ProtocolData",
    "poisson_episodes",
    "protocol_v1",
    "run_episodes",
]
