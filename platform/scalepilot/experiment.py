"""Train → evaluate → report: one experiment from its config to a verdict."""

from __future__ import annotations

import contextlib
import datetime as dt
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from scalepilot.cluster import connected
from scalepilot.config import ExperimentConfig
from scalepilot.errors import ArtifactError
from scalepilot.evaluate.compare import Comparison, Contestant, compare, write_evaluation
from scalepilot.evaluate.report import ReportData, write_report
from scalepilot.learn.progress import Progress
from scalepilot.learn.run_folder import RunFolder, git_sha, hardware, library_versions
from scalepilot.policy import ActionEntry, Planner, Policy, PolicySpec, autoscale_fields, load_policy, save_policy
from scalepilot.policy.rules import Hpa, HpaParameters
from scalepilot.policy.rules.hpa import METRICS
from scalepilot.simulate import ProtocolData, protocol_v1, run_episodes
from scalepilot.tuning import describe_parameters, tune_hpa, tune_look_ahead, tuned_rule
from scalepilot_envs.autoscale import DEFAULT_MOVES, ENV_ID, AutoscaleParams, MoveTable
from scalepilot_envs.workloads import TraceWorkload

HPA_DEFAULT = "hpa-default"
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class ExperimentResult:
    """What a run left behind; `comparison` is None when it was stopped before the evaluation."""

    folder: RunFolder
    finished: bool
    comparison: Comparison | None


class StopFlag:
    """Ctrl-C once asks for an orderly end, twice ends at once (KeyboardInterrupt)."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.asked

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM over for the length of a `with` block."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            print("\nstopping after this iteration; once more to end at once", flush=True)

        previous = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def workload_name(config: ExperimentConfig) -> str:
    """A short name for tables: the trace's file, or the kind."""
    if isinstance(config.workload, TraceWorkload):
        return Path(config.workload.path).stem
    return config.name if config.name != "experiment" else config.workload.kind


def load_data(config: ExperimentConfig) -> ProtocolData:
    """The experiment's workload cut by protocol v1."""
    evaluation = config.evaluation
    return protocol_v1(
        workload_name(config),
        config.workload,
        config.env.params,
        window_steps=evaluation.window_steps,
        drawn_windows=evaluation.drawn_windows,
        test_seeds=evaluation.test_seeds,
    )


def policy_spec(config: ExperimentConfig, folder: RunFolder) -> PolicySpec:
    """Description of the policy this run will export."""
    return PolicySpec(
        name=f"{config.name}-{config.algorithm}"[:64],
        version=folder.run_id,
        kind="network",
        env_id=ENV_ID,
        env_params=asdict(config.env.params),
        observation_fields=autoscale_fields(config.env.params),
        actions=tuple(ActionEntry(**entry) for entry in MoveTable(DEFAULT_MOVES).to_json()),
        decision_rule="argmax_p",
        provenance={
            "algorithm": config.algorithm,
            "engine": config.engine,
            "seed": config.seed,
            "config": config.to_mapping(),
            "versions": library_versions(),
            "git_sha": git_sha(),
            "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        },
    )


def tuned_rivals(data: ProtocolData, params: AutoscaleParams, evaluations: int, folder: Path | None) -> list[Hpa]:
    """HPA tuned on each metric, from `folder` where a run was resumed, else searched and stored there."""
    rivals: list[Hpa] = []
    for metric in METRICS:
        name = f"hpa-tuned-{metric}"
        if folder is not None and (folder / name).exists():
            with contextlib.suppress(ArtifactError):
                stored = load_policy(folder / name)
                assert isinstance(stored, Hpa)
                rivals.append(stored)
                continue
        progress = Progress(f"tuning HPA on {metric}", "evaluations")
        share = evaluations // len(METRICS)
        progress.begin(share)
        found = tune_hpa(data, params, metric=metric, evaluations=share, progress=progress.update)
        rule = tuned_rule("hpa", found, params, name)
        progress.end()
        if folder is not None:
            save_policy(rule, folder / name)
        rivals.append(rule)
    return rivals


def judge(
    data: ProtocolData,
    params: AutoscaleParams,
    policies: list[tuple[str, Policy]],
    rivals: list[Hpa],
    *,
    bootstrap_samples: int,
) -> Comparison:
    """Fly policies, default and tuned HPA and the look-ahead through the test windows.

    Args:
        data: the protocol's episodes.
        params: the service.
        policies: (row label, policy).
        rivals: tuned rules.
        bootstrap_samples: resamples behind the intervals.
    """
    default = Hpa(HpaParameters(), params, name=HPA_DEFAULT)
    look_ahead = tune_look_ahead(data, params)
    entries: list[tuple[str, str, str, Policy | Planner]] = [
        (label, "policy", describe_policy(policy), policy) for label, policy in policies
    ]
    entries += [(rule.spec.name, "baseline", describe_parameters(rule.parameters), rule) for rule in (default, *rivals)]
    entries.append(
        (look_ahead.name, "reference", f"knows the coming mean rates, utilisation {look_ahead.utilisation:.2f}", look_ahead)
    )
    contestants, played_back = [], _busiest_window(data)
    progress = Progress("evaluating", "policies")
    progress.begin(len(entries))
    for done, (name, role, detail, actor) in enumerate(entries, start=1):
        results, playback = run_episodes(actor, data.test, params, playback_of=played_back)
        contestants.append(Contestant(name, role, detail, results, playback))  # type: ignore[arg-type]
        progress.update(done)
    progress.end()
    return compare(data.test.workload, data.test, contestants, bootstrap_samples=bootstrap_samples)


def _busiest_window(data: ProtocolData) -> int:
    """The test episode worth playing back: the one whose rate varies most."""
    return int(data.test.rates_rps[data.test.seed == data.test.seed[0]].std(axis=1).argmax())


def describe_policy(policy: Policy) -> str:
    """One phrase for a table: how it came to be."""
    provenance = policy.spec.provenance
    if policy.spec.kind == "rule":
        parameters = getattr(policy, "parameters", None)
        return describe_parameters(parameters) if parameters is not None else "rule"
    steps = provenance.get("env_steps")
    trained = f", {steps / 1e6:.1f} M steps" if isinstance(steps, int) else ""
    return f"{provenance.get('algorithm', policy.spec.kind)}, seed {provenance.get('seed', '?')}{trained}"


def run_experiment(config: ExperimentConfig, folder: RunFolder, *, resume: bool = False) -> ExperimentResult:
    """Train (or go on training), then evaluate and report.

    Args:
        config: the experiment.
        folder: its run folder.
        resume: continue from the newest checkpoint.
    """
    data = load_data(config)
    folder.start_logging()
    folder.write_status("running")
    stop = StopFlag()
    try:
        rivals = tuned_rivals(data, config.env.params, config.evaluation.tuning_evaluations, folder.baselines)
        trained = json_outcome = None
        with connected(config.resources):
            from scalepilot.learn.rllib.trainer import RLlibTrainer
            from scalepilot.learn.trainer import TrainingLoop

            trainer = RLlibTrainer(config)
            try:
                spec = policy_spec(config, folder)
                loop = TrainingLoop(config, trainer, folder, data, spec, Progress(f"training {config.algorithm}"))
                if resume:
                    loop.resume()
                with stop.listening():
                    trained = loop.run(stop)
                json_outcome = asdict(trained)
            finally:
                trainer.close()
        folder.write_metrics_parquet()
        if not trained.finished:
            folder.write_status(INTERRUPTED, training=json_outcome)
            return ExperimentResult(folder, False, None)
        folder.write_status("evaluating", training=json_outcome)
        comparison = evaluate_run(config, folder, data, rivals)
        folder.write_status("finished", training=json_outcome)
        return ExperimentResult(folder, True, comparison)
    except KeyboardInterrupt:
        folder.write_status(INTERRUPTED)
        raise
    except Exception as error:
        folder.write_status("failed", error=str(error))
        raise
    finally:
        folder.close()


def evaluate_run(config: ExperimentConfig, folder: RunFolder, data: ProtocolData, rivals: list[Hpa]) -> Comparison:
    """Judge the run's policy on the test windows, write evaluation/ and report.html."""
    policy = load_policy(folder.policy)
    comparison = judge(
        data, config.env.params, [(policy.spec.name, policy)], rivals, bootstrap_samples=config.evaluation.bootstrap_samples
    )
    write_evaluation(comparison, folder.evaluation)
    lines = {HPA_DEFAULT: _validation_J(Hpa(HpaParameters(), config.env.params), data, config.env.params)}
    lines |= {r.spec.name: float(r.spec.provenance["validation_J_per_hour"]) for r in rivals}
    provenance: dict[str, Any] = {
        "run": folder.run_id,
        "algorithm": config.algorithm,
        "engine": config.engine,
        "seed": config.seed,
        "env steps of the policy": policy.spec.provenance.get("env_steps"),
        "git sha": git_sha(),
        **{f"version of {name}": version for name, version in library_versions().items()},
        **hardware(),
    }
    write_report(
        ReportData(
            title=f"{config.name} · {config.algorithm} on {comparison.workload}",
            comparison=comparison,
            learning_curve=folder.read_metrics(),
            config_yaml=config.to_yaml(),
            provenance=provenance,
            reproduce=[f"scalepilot train {folder.config_file}", f"scalepilot serve {folder.path}"],
            reference_lines=lines,
        ),
        folder.report,
    )
    return comparison


def _validation_J(rule: Hpa, data: ProtocolData, params: AutoscaleParams) -> float:
    return float(run_episodes(rule, data.validation, params)[0].J_per_hour.mean())
