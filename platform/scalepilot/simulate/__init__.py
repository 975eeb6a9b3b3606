"""Episodes: policies × workloads × seeds, in batches; and what they would cost at best."""

from scalepilot.simulate.cells import Cell, CellStore, FlownCell, fly_cells, packed
from scalepilot.simulate.episodes import EpisodeResults, EpisodeSet, Playback, poisson_episodes, run_episodes
from scalepilot.simulate.executor import Executor, ProcessExecutor, SerialExecutor, usable_cores
from scalepilot.simulate.optimum import Optimum, OptimumCache, PlannedTargets, autoscale_optimum
from scalepilot.simulate.protocol import ProtocolData, protocol_v1
from scalepilot.simulate.returns import EpisodeReturns, ReturnsJob, as_rows, fly_returns, run_returns

__all__ = [
    "Cell",
    "CellStore",
    "EpisodeResults",
    "EpisodeReturns",
    "EpisodeSet",
    "Executor",
    "FlownCell",
    "Optimum",
    "OptimumCache",
    "PlannedTargets",
    "Playback",
    "ProcessExecutor",
    "ProtocolData",
    "ReturnsJob",
    "SerialExecutor",
    "as_rows",
    "autoscale_optimum",
    "fly_cells",
    "fly_returns",
    "packed",
    "poisson_episodes",
    "protocol_v1",
    "run_episodes",
    "run_returns",
    "usable_cores",
]
