"""Checks of a whole command line: what is given must be used, and no number may ask for more than there is.

Every rule is here, in two tables, so that an option that some combination leaves without a say cannot be forgotten quietly.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

from scalepilot.errors import InputError

_MAX_SEED, _MOST_SEEDS = 2**31 - 1, 10_000
_MAX_RPS = 1e9
# Of every command that has such an option: lowest, highest; whole numbers where both are.
_BOUNDS: dict[str, tuple[float, float]] = {
    "evaluations": (2, 1_000_000),
    "steps": (1, 1_000_000),
    "jobs": (1, 1000),
    "concurrency": (1, 10_000),
    "seed": (0, _MAX_SEED),
    "peak_rps": (0.0, _MAX_RPS),
    "arrival_seeds": (1, _MOST_SEEDS),
    "episodes": (1, 100_000),
}
_ALL_OF_TRAIN = ("config", "set", "workload", "peak_rps", "resume", "init", "address", "storage", "no_evaluation", "json")
_ALL_OF_TUNE = ("sweep", "set", "resume", "concurrency", "address", "storage", "json")
_ALL_OF_COMPARE = (
    *("policies", "baseline", "workload", "seeds", "arrival_seeds", "episodes", "steps", "windows", "config", "set", "peak_rps"),
    *("evaluations", "no_optimum", "out", "cache", "resume", "step_log", "jobs", "address"),
)
_ALL_OF_SERVE = ("config", "watch", "host", "port", "replicas", "ingress", "require_signature", "log_file", "address")
_OF_TRACES = ("gaps", "interval_seconds", "counter_resets")
# (options, why they are not used) where they are not.
_Rule = tuple[tuple[str, ...], str]


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse options that are given and not used, and numbers out of bounds.

    Raises:
        InputError: naming the option and what is allowed.
    """
    rules = {
        "train": _train,
        "tune": _tune,
        "compare": _compare,
        "study": _study,
        "report": _report,
        "demo": _demo,
        "submit": _submit,
        "serve": _serve,
        "operate": _operate,
        "workload": _workload,
        "env": _env,
    }
    for names, reason in rules.get(arguments.command, _none)(arguments):
        for name in names:
            if is_given(arguments, name):
                raise InputError(f"{_option(arguments, name)}: is not used {reason}")
    if arguments.command in ("train", "tune", "compare") and arguments.address:
        from scalepilot.cluster.connection import check_address

        # Before anything large is imported.
        check_address(arguments.address)
    for name, (low, high) in _BOUNDS.items():
        _check_number(arguments, name, low, high)
    seeds = getattr(arguments, "seeds", None)
    if isinstance(seeds, int):
        _check_number(arguments, "seeds", 1, _MOST_SEEDS)
    elif seeds is not None and (len({*seeds}) < len(seeds) or min(seeds) < 0 or max(seeds) > _MAX_SEED):
        raise InputError(f"--seeds: {seeds} is not allowed; allowed: whole numbers from 0 to {_MAX_SEED}, each once")


def is_kind(workload: str | None) -> bool:
    """Whether a workload is a kind's name, and no file of that name is there."""
    if workload is None or Path(workload).suffix or Path(workload).exists():
        return False
    from scalepilot_envs.workloads import WORKLOADS

    return workload in WORKLOADS


def is_given(arguments: argparse.Namespace, name: str) -> bool:
    """Whether an option is on the command line; its default may be any value."""
    value = getattr(arguments, name, None)
    # Flags and options that may be repeated are off or empty by default; of the others the parser notes which it met.
    return bool(value) if isinstance(value, bool | list) else name in getattr(arguments, "_given", ()) and value is not None


def _option(arguments: argparse.Namespace, name: str) -> str:
    if name in ("config", "sweep", "study", "policies") and not (name == "config" and arguments.command in ("compare", "serve")):
        return {"config": "CONFIG", "sweep": "SWEEP", "study": "STUDY", "policies": "POLICY"}[name]
    named = {("tune", "concurrency"): "jobs", ("submit", "output"): "out", ("demo", "pattern"): "workload"}
    return f"--{named.get((arguments.command, name), name).replace('_', '-')}"


def _check_number(arguments: argparse.Namespace, name: str, low: float, high: float) -> None:
    value = getattr(arguments, name, None)
    # A workload's own keys have bounds of their own.
    if value is None or isinstance(value, str) or arguments.command == "workload":
        return
    if not (math.isfinite(value) and low <= value <= high):
        numbers = f"whole numbers from {low} to {high}" if isinstance(low, int) else f"finite numbers from {low:g} to {high:g}"
        raise InputError(f"{_option(arguments, name)}: {value!r} is not allowed; allowed: {numbers}")


def _none(_: argparse.Namespace) -> Iterator[_Rule]:
    yield from ()


def _train(a: argparse.Namespace) -> Iterator[_Rule]:
    if a.schema:
        yield _ALL_OF_TRAIN, "with --schema, which prints the schema and exits"
    if a.resume is not None:
        yield ("workload", "peak_rps", "address"), "with --resume: a run keeps its own workload and cluster; allowed with CONFIG"
    if a.workload is None or is_kind(a.workload):
        yield ("peak_rps",), "without a trace as --workload, whose requests it scales"
    if a.workload is not None:
        _refuse_set(a, "workload", "with --workload, which replaces it")


def _tune(a: argparse.Namespace) -> Iterator[_Rule]:
    if a.schema:
        yield _ALL_OF_TUNE, "with --schema, which prints the schema and exits"


def _compare(a: argparse.Namespace) -> Iterator[_Rule]:
    if a.plot_only is not None:
        yield _ALL_OF_COMPARE, "with --plot-only, which runs nothing"
    if a.address is not None:
        yield ("jobs",), "with --address: the cluster has its own processes"
    if not a.workload:
        yield ("peak_rps",), "without --workload, whose requests it scales"


def _report(a: argparse.Namespace) -> Iterator[_Rule]:
    if not a.plots:
        yield ("field",), "without --plots, whose policy map it is for"


def _study(a: argparse.Namespace) -> Iterator[_Rule]:
    _refuse_set(a, "seed", "here; allowed: --seeds")
    if a.schema:
        yield ("study", "seeds", "set", "jobs", "resume", "out", "json"), "with --schema, which prints the schema and exits"


def _demo(a: argparse.Namespace) -> Iterator[_Rule]:
    if a.no_render or a.json:
        yield ("delay",), f"with {'--json' if a.json else '--no-render'}: nothing is shown live"


def _submit(a: argparse.Namespace) -> Iterator[_Rule]:
    if a.attach is not None:
        yield ("set", "pip", "env", "no_wait"), "with --attach: the job was begun before; allowed with CONFIG"
    if a.storage is not None or a.no_wait:
        yield ("output",), f"with {'--no-wait' if a.no_wait else '--storage'}: nothing comes back here"


def _serve(a: argparse.Namespace) -> Iterator[_Rule]:
    if a.policies == ["status"] and not Path("status").exists():
        yield (*_ALL_OF_SERVE, "rollback"), "with `status`, which asks a server; allowed: --url, --api-key-file, --json"
        return
    yield ("url",), "here; allowed: scalepilot serve status --url URL"
    if a.rollback is not None:
        unused = ("policies", "host", "port", "api_key_file", "replicas", "ingress", "log_file", "address", "json")
        yield unused, "with --rollback, which serves nothing; allowed: --watch, --config, --require-signature"
    if a.address is not None:
        yield ("ingress",), "with --address: a cluster has Serve's own proxy"


def _operate(a: argparse.Namespace) -> Iterator[_Rule]:
    word = a.what[0] if a.what and a.what[0] in ("log", "explain", "report") and not Path(a.what[0]).exists() else ""
    if word:
        yield ("dry_run", "check", "once", "replay", "twin"), f"with `{word}`, which reads what was recorded"
    if word != "report":
        yield ("out", "price_per_replica_hour", "price_per_late_request"), "here; allowed: scalepilot operate report"
    if word != "log":
        yield ("last",), "here; allowed: scalepilot operate log"
    if not word and not a.twin:
        yield ("records",), "here; allowed: records in --config, and with log, explain, report and --twin"
    if not a.twin:
        yield ("workload", "minutes", "pace"), "without --twin"
    else:
        yield ("dry_run", "check", "once", "replay"), "with --twin, which can harm nothing"


def _workload(a: argparse.Namespace) -> Iterator[_Rule]:
    path = Path(a.source) if a.what == "show" else None
    if path is not None and (path.suffix.lower() in (".yaml", ".yml") or not (path.suffix or path.exists())):
        yield _OF_TRACES, f"with {a.source}; allowed: with a trace's file"


def _env(a: argparse.Namespace) -> Iterator[_Rule]:
    if a.json:
        yield ("markdown",), "with --json; allowed: one of both"


def _refuse_set(a: argparse.Namespace, section: str, reason: str) -> None:
    for setting in a.set:
        key = setting.partition("=")[0].strip()
        if key.partition(".")[0] == section:
            raise InputError(f"--set {key}: is not used {reason}")
