"""The workload of an experiment, cut by protocol v1."""

from __future__ import annotations

from pathlib import Path

from scalepilot.config import ExperimentConfig
from scalepilot.simulate.protocol import ProtocolData, protocol_v1
from scalepilot_envs.workloads import TraceWorkload


def workload_name(config: ExperimentConfig, otherwise: str | None = None) -> str:
    """A short name for tables: the trace's file, or the experiment's name; without one, `otherwise` or the kind."""
    if isinstance(config.workload, TraceWorkload):
        return Path(config.workload.path).stem
    return config.name if config.name != "experiment" else otherwise or config.workload.kind


def load_data(config: ExperimentConfig) -> ProtocolData:
    """The experiment's workload cut by protocol v1."""
    evaluation = config.evaluation
    return protocol_v1(
        workload_name(config),
        config.workload,
        config.autoscale.params,
        window_steps=evaluation.window_steps,
        drawn_windows=evaluation.drawn_windows,
        test_seeds=evaluation.test_seeds,
    )
