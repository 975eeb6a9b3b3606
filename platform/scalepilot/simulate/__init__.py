"""Episodes: policies × scenarios × seeds, in batches; and what they would come to at best."""

from scalepilot.simulate.cells import Cell, CellStore, packed, run_cells
from scalepilot.simulate.episode_runner import EpisodeLimits, as_rows, run_returns
from scalepilot.simulate.episodes import EpisodeIndex, EpisodeResults, EpisodeSet, Playback, poisson_episodes, run_episodes
from scalepilot.simulate.executor import Executor, ProcessExecutor, SerialExecutor, usable_cores
from scalepilot.simulate.optimum import Optimum, OptimumCache, PlannedTargets, autoscale_optimum
from scalepilot.simulate.protocol import ProtocolData, protocol_v1
from scalepilot.simulate.scenario import (
    CellResult,
    Episodes,
    Scenario,
    SeededEpisodes,
    TrafficEpisodes,
    scenario_name,
    scenario_of,
    traffic_scenario,
)

__all__ = [
    "Cell",
    "CellResult",
    "CellStore",
    "EpisodeIndex",
    "EpisodeLimits",
    "EpisodeResults",
    "EpisodeSet",
    "Episodes",
    "Executor",
    "Optimum",
    "OptimumCache",
    "PlannedTargets",
    "Playback",
    "ProcessExecutor",
    "ProtocolData",
    "Scenario",
    "SeededEpisodes",
    "SerialExecutor",
    "TrafficEpisodes",
    "as_rows",
    "autoscale_optimum",
    "packed",
    "poisson_episodes",
    "protocol_v1",
    "run_cells",
    "run_episodes",
    "run_returns",
    "scenario_name",
    "scenario_of",
    "traffic_scenario",
    "usable_cores",
]
