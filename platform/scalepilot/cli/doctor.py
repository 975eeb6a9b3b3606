"""`scalepilot doctor`: what is installed, what this machine offers, what is wrong with either."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from scalepilot.cli import output
from scalepilot.cluster.ray_internals import ray_home

HELP = "check this installation and machine and say how to fix what is wrong"

# Import name → (distribution, what stops working without it, extra that installs it).
_LIBRARIES = {
    "numpy": ("numpy", "everything", ""),
    "gymnasium": ("gymnasium", "everything", ""),
    "onnxruntime": ("onnxruntime", "network policies", ""),
    "pyarrow": ("pyarrow", "metrics and evaluations", ""),
    "ray": ("ray", "training and serving", "train"),
    "torch": ("torch", "training", "train"),
    "onnx": ("onnx", "export of policies", "train"),
    "tensorboard": ("tensorboard", "TensorBoard", "train"),
    "swagger_ui_bundle": ("swagger-ui-bundle", "serving", "serve"),
    "stable_baselines3": ("stable-baselines3", "the cross-check", "sb3"),
}
_LITTLE_DISK_BYTES = 2 * 1024**3
_LITTLE_SHM_BYTES = 512 * 1024**2


@dataclass(frozen=True)
class Finding:
    """One line of the check-up; `status` is ok, note or problem."""

    what: str
    status: str
    detail: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `doctor`."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; 1 when there is a problem."""
    findings = [*_python(), *_libraries(), *_machine(), *_accelerator(), *_ray_home()]
    if arguments.json:
        print(json.dumps([asdict(f) for f in findings], indent=1))
    else:
        from rich.text import Text

        console = output.console()
        styles = {"ok": "green", "note": "yellow", "problem": "bold red"}
        for finding in findings:
            line = Text(f"{finding.status:8}", style=styles[finding.status])
            console.print(line.append(f"{finding.what:20}", style="bold").append(finding.detail, style="default"), soft_wrap=True)
    return int(any(f.status == "problem" for f in findings))


def _python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    shadowed = not hasattr(importlib.import_module("platform"), "python_version")
    findings = [Finding("python", "ok" if sys.version_info >= (3, 11) else "problem", f"{version} (needs 3.11 or newer)")]
    if shadowed:
        findings.append(
            Finding("platform", "problem", "`import platform` is not the standard library's: remove platform/__init__.py")
        )
    return findings


def _libraries() -> list[Finding]:
    findings = []
    for distribution, purpose, extra in _LIBRARIES.values():
        try:
            findings.append(Finding(distribution, "ok", importlib.metadata.version(distribution)))
        except importlib.metadata.PackageNotFoundError:
            mend = (
                f"pip install -c constraints.txt 'scalepilot[{extra}]'" if extra else "pip install -c constraints.txt scalepilot"
            )
            findings.append(Finding(distribution, "note" if extra else "problem", f"not installed: no {purpose}; {mend}"))
    return findings


def _machine() -> list[Finding]:
    cores = os.cpu_count() or 1
    free = shutil.disk_usage(Path.cwd()).free
    findings = [
        Finding("cores", "ok", f"{cores} (env runners beyond {max(1, cores - 1)} bring little)"),
        Finding("disk", "ok" if free > _LITTLE_DISK_BYTES else "problem", f"{free / 1024**3:.1f} GiB free in {Path.cwd()}"),
    ]
    shm = Path("/dev/shm")  # noqa: S108 - the kernel's shared memory, where Ray keeps its objects
    if shm.exists():
        size = shutil.disk_usage(shm).free
        detail = f"{size / 1024**3:.1f} GiB of shared memory for Ray's objects"
        findings.append(Finding("shared memory", "ok" if size > _LITTLE_SHM_BYTES else "note", detail))
    return findings


def _accelerator() -> list[Finding]:
    if importlib.util.find_spec("torch") is None:
        return []
    from scalepilot.learn.devices import describe_devices

    return [Finding("devices", "ok", describe_devices())]


def _ray_home() -> list[Finding]:
    findings = []
    # Where our own clusters' files are, and Ray's default.
    for logs in (ray_home() / "r", Path("/tmp/ray")):  # noqa: S108
        if logs.exists() and os.access(logs, os.R_OK | os.X_OK):
            size = sum(f.stat().st_size for f in logs.rglob("*") if f.is_file() and not f.is_symlink())
            detail = f"{size / 1024**2:.0f} MiB in {logs}; old session_* folders may be removed while no Ray runs"
            findings.append(Finding("ray logs", "note" if size > 1024**3 else "ok", detail))
    return findings
