"""The workload of an experiment, cut by protocol v1."""

from __future__ import annotations

from pathlib import Path

from scalepilot.config import ExperimentConfig
from scalepilot.errors import InputError, did_you_mean
from scalepilot.simulate.protocol import ProtocolData, protocol_v1
from scalepilot_envs.workloads import WORKLOADS, TraceWorkload, Workload, workload_from_mapping


def workload_name(config: ExperimentConfig, otherwise: str | None = None) -> str:
    """A short name for tables: the trace's file, or the experiment's name; without one, `otherwise` or the kind."""
    if isinstance(config.workload, TraceWorkload):
        return Path(config.workload.path).stem
    return config.name if config.name != "experiment" else otherwise or config.workload.kind


def named_workload(text: str, peak_rps: float) -> tuple[str, Workload]:
    """Its name and the workload that `--workload` names: a kind, or a trace's file.

    Args:
        text: of the option.
        peak_rps: its 99.5 % quantile is scaled to this; 0 keeps it.

    Raises:
        InputError: neither, or one that cannot be used.
    """
    path = Path(text)
    if not (path.suffix or path.exists()) and text not in WORKLOADS:
        raise InputError(
            f"--workload {text}: is neither a file nor a kind; allowed: a trace's file, or {', '.join(WORKLOADS)}"
            f"{did_you_mean(text, WORKLOADS)}"
        )
    try:
        if text in WORKLOADS and not path.exists():
            return text, workload_from_mapping({"kind": text, "peak_rps": peak_rps or None})
        return path.stem, TraceWorkload(path=text, peak_rps=peak_rps or None)
    except ValueError as error:
        raise InputError(f"--workload {text}: {error}") from None


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
