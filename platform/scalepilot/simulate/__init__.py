"""Episodes: policies × workloads × seeds, in batches."""

from scalepilot.simulate.episodes import EpisodeResults, EpisodeSet, Playback, poisson_episodes, run_episodes
from scalepilot.simulate.protocol import PEAK_RPS, ProtocolData, protocol_v1

__all__ = [
    "PEAK_RPS",
    "EpisodeResults",
    "EpisodeSet",
    "Playback",
    "ProtocolData",
    "poisson_episodes",
    "protocol_v1",
    "run_episodes",
]
