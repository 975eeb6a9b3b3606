"""A run's folder: where everything is, and how it is written."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import importlib.metadata
import io
import logging
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scalepilot.config import ExperimentConfig, config_from_mapping, env_section, read_yaml
from scalepilot.errors import InputError, RunError
from scalepilot.files.atomic import write_bytes, write_json
from scalepilot.files.env_modules import find_in_recorded_folders, folders_of
from scalepilot.files.ownership import check_own
from scalepilot.files.stored import read_numbers
from scalepilot.runs.metrics import METRICS
from scalepilot.runs.status import read_status

_LIBRARIES = ("scalepilot", "ray", "torch", "numpy", "gymnasium", "onnx", "onnxruntime", "stable-baselines3")


def library_versions() -> dict[str, str]:
    """Versions of what decides results."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def hardware() -> dict[str, Any]:
    """What it ran on, in a few words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    return {"machine": platform.machine(), "system": platform.system(), "cpu": model, "cores": os.cpu_count()}


def git_sha() -> str | None:
    """Commit of the source tree this package runs from; None where it is no checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - git from PATH is meant
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def new_folder(base: Path, suffix: str, what: str) -> Path:
    """Make a folder named after this second under `base`, numbered on if it is taken.

    Args:
        base: made, too, if missing.
        suffix: behind date, time and number.
        what: such folders hold, for an error.

    Raises:
        InputError: it cannot be made.
    """
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S")
    for attempt in range(1000):
        path = base / f"{stamp}{f'.{attempt}' if attempt else ''}{suffix}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"output: {path} cannot be made ({error.strerror})") from None
        return path
    raise InputError(f"output: {base} is full of {what} of this second")


def _is_cut_off(values: Mapping[str, Any]) -> bool:
    """Whether a run's configuration, which is written with every key in this order, ends early: the rest would be defaults."""
    if "env" not in values:
        return True
    tracking = values.get("tracking")
    return "engine" in values and not (isinstance(tracking, Mapping) and "mlflow_experiment" in tracking)


def find_modules(path: Path) -> None:
    """Have Python find the modules of the environment that a run of this user was trained on, where they were then.

    Args:
        path: a run's or a sweep's folder, or a policy's in one; of any other nothing is looked at.

    Raises:
        InputError: another user could change such a module.
    """
    folder = path.parent if path.name.startswith("policy") else path
    file = _written_from(folder)
    if file is None:
        return
    try:
        # What another user could write may not say which folder code is imported from.
        check_own(folder / "run.json")
        env, recorded = env_section(read_yaml(file)), read_status(folder).get("modules")
    except InputError:
        # Said by whoever needs what is in them.
        return
    find_in_recorded_folders(env, recorded, folder)


def _written_from(folder: Path) -> Path | None:
    """The configuration that a run's, or a sweep's, folder was made from."""
    return next((folder / name for name in ("config.yaml", "sweep.yaml") if (folder / name).is_file()), None)


class _LogFile(logging.FileHandler):
    """A log that a full disk makes incomplete instead of filling the terminal with tracebacks."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Go on without the line."""

    def close(self) -> None:
        """Close; a line that is still to be written may be lost."""
        with contextlib.suppress(OSError):
            super().close()


class RunFolder:
    """runs/<name>/<date-time>-<seed>/ and what is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.checkpoints = path / "checkpoints"
        self.policy, self.policy_final = path / "policy", path / "policy-final"
        self.init, self.deploy = path / "init", path / "deploy"
        self.plots, self.videos = path / "plots", path / "videos"
        self.baselines, self.evaluation = path / "baselines", path / "evaluation"
        self.report = path / "report.html"
        self.progress_csv, self.metrics_parquet = path / "progress.csv", path / "metrics.parquet"
        self._log_handler: logging.Handler | None = None
        self._modules: dict[str, str] | None = None

    @classmethod
    def create(cls, config: ExperimentConfig) -> RunFolder:
        """A new folder under `config.output`, numbered on if the second is taken."""
        folder = cls(new_folder(Path(config.output) / config.name, f"-{config.seed}", "runs"))
        write_bytes(folder.config_file, config.to_yaml().encode())
        return folder

    @classmethod
    def open(cls, path: Path) -> tuple[RunFolder, ExperimentConfig]:
        """An existing run and its configuration.

        Raises:
            InputError: not a run folder.
        """
        folder = cls(path)
        if not os.path.lexists(folder.config_file):
            raise InputError(f"{path}: holds no config.yaml; allowed: a run folder, such as runs/demo/20261120-120000-0")
        values = read_yaml(folder.config_file)
        if not values:
            # Every key has a default: what is left of an emptied file would be another experiment.
            raise InputError(f"{folder.config_file}: is empty; allowed: the configuration that the run was begun with")
        if isinstance(values, dict) and _is_cut_off(values):
            raise InputError(f"{folder.config_file}: is cut off after {list(values)[-1]}; allowed: the whole of it")
        find_modules(path)
        return folder, config_from_mapping(values, source=str(folder.config_file))

    @property
    def run_id(self) -> str:
        """Folder name: date, time and seed."""
        return self.path.name

    def start_logging(self) -> None:
        """Open logs/training.log."""
        (self.path / "logs").mkdir(exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        self._log_handler = _LogFile(self.path / "logs" / "training.log", encoding="utf-8")
        self._log_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        log = logging.getLogger("scalepilot")
        log.setLevel(logging.INFO)
        log.addHandler(self._log_handler)
        log.propagate = False

    def log_metrics(self, row: Mapping[str, float | None]) -> None:
        """Append one iteration to progress.csv; names outside METRICS are refused."""
        unknown = set(row) - set(METRICS)
        if unknown:
            raise ValueError(f"metrics: {sorted(unknown)} are not documented: an algorithm names what it measures in its record")
        new = not self.progress_csv.exists()
        with self.progress_csv.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(METRICS)
            values = [row.get(name) for name in METRICS]
            writer.writerow(["" if value is None else repr(value) for value in values])

    def read_metrics(self) -> list[dict[str, float | None]]:
        """All iterations logged so far, with every documented name.

        Raises:
            InputError: progress.csv is damaged.
        """
        if not os.path.lexists(self.progress_csv):
            return []
        # A process killed while writing, or a full disk, may leave the last line short: it is left out.
        rows = read_numbers(self.progress_csv, METRICS)
        for number, row in enumerate(rows, start=2):
            for name in ("iteration", "env_steps"):
                value = row[name]
                if value is not None and not (0 <= value < 2**53 and value == int(value)):
                    raise InputError(f"{self.progress_csv}:{number}: {name}: {value!r} is not allowed; allowed: whole numbers")
        return rows

    def truncate_metrics(self, iteration: int) -> None:
        """Forget iterations after `iteration`: they were not in the checkpoint and run again."""
        rows = [row for row in self.read_metrics() if (row["iteration"] or 0) <= iteration]
        text, whole = io.StringIO(newline=""), {"iteration", "env_steps"}
        writer = csv.writer(text)
        writer.writerow(METRICS)
        for row in rows:
            writer.writerow(["" if (v := row[n]) is None else repr(int(v)) if n in whole else repr(v) for n in METRICS])
        write_bytes(self.progress_csv, text.getvalue().encode())

    def write_metrics_parquet(self) -> None:
        """progress.csv as metrics.parquet, absent values null."""
        rows = self.read_metrics()
        table = pa.table({name: pa.array([row[name] for row in rows], pa.float64()) for name in METRICS})
        data = pa.BufferOutputStream()
        pq.write_table(table, data)
        write_bytes(self.metrics_parquet, data.getvalue().to_pybytes())

    def write_status(self, status: str, **details: Any) -> None:
        """run.json: status, versions, hardware and whatever is known by now."""
        try:
            known = self.read_status()
        except InputError as problem:
            # A run that trains goes on without what was known.
            logging.getLogger("scalepilot.training").warning("%s; written anew", problem)
            known = {}
        known |= {
            "status": status,
            "updated": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "versions": library_versions(),
            "hardware": hardware(),
            "git_sha": git_sha(),
            "process": {"pid": os.getpid(), "host": platform.node()},
        }
        if modules := self._module_folders():
            known["modules"] = modules
        write_json(self.path / "run.json", known | details)

    def _module_folders(self) -> dict[str, str]:
        """Where the modules of its environment are, for whatever reads the run later."""
        file = _written_from(self.path)
        if self._modules is None and file is not None:
            # A run that trains goes on without what is not known.
            with contextlib.suppress(InputError):
                self._modules = folders_of(env_section(read_yaml(file)))
        return self._modules or {}

    def read_status(self) -> dict[str, Any]:
        """What run.json holds; {} if it is missing.

        Raises:
            InputError: it is damaged.
        """
        return dict(read_status(self.path))

    def mark_resumed(self, iteration: int, **details: Any) -> None:
        """Note in run.json that the run went on from `iteration`, and how."""
        known, now = self.read_status(), dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        self.write_status("running", resumed=[*known.get("resumed", []), {"iteration": iteration, "at": now, **details}])

    def cannot_write(self, path: Path, error: OSError) -> RunError:
        """What to say of a full disk."""
        return RunError(f"{path}: cannot be written ({error.strerror}); make room, then: scalepilot train --resume {self.path}")

    def close(self) -> None:
        """Flush and close the log."""
        if self._log_handler is not None:
            logging.getLogger("scalepilot").removeHandler(self._log_handler)
            self._log_handler.close()
            self._log_handler = None
