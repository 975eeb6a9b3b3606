"""Jobs on somebody else's Ray cluster: our code and the config go there over its dashboard's port, the run comes back.

Nothing of Scalepilot needs to be installed there: both packages travel with the job, to every node, and so do recorded workloads
and the user's own environments. What they need (Ray, torch, onnxruntime …) has to be in the cluster's image.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import yaml

import scalepilot
import scalepilot_envs
from scalepilot.cluster.ray_internals import use_token
from scalepilot.cluster.storage import RAY_LOGS, unpack
from scalepilot.errors import InputError, RunError
from scalepilot.files.stored import read_bytes

# Ray refuses larger packages, after it has read all of them.
_MOST_UPLOAD_BYTES = 100 * 1024 * 1024
_POLL_SECONDS, _ANSWER_SECONDS = 1.0, 4.0
_CONFIG, _TRACES = "config.yaml", "traces"
# Of a package: what would keep files out of the upload that belong to it, and what is never needed.
_NOT_SENT = ("__pycache__", ".git", ".gitignore", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache")
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class JobRequest:
    """What is to run.

    Attributes:
        command: train or tune.
        values: the configuration, checked; the recorded workloads in it that are files here travel along.
        modules: files and package folders of environments that travel along.
        storage: URI where the job takes its run to; None for back here.
        pip: packages that the cluster's nodes install first.
        env: variables of the job's processes.
    """

    command: str
    values: Mapping[str, Any]
    modules: tuple[Path, ...] = ()
    storage: str | None = None
    pip: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


class Jobs:
    """A cluster's jobs.

    Args:
        address: of its dashboard, such as http://10.0.0.5:8265.

    Raises:
        InputError: nobody answers there, or the token is missing or wrong.
    """

    def __init__(self, address: str) -> None:
        if not address.startswith(("http://", "https://")):
            raise InputError(f"--address: {address!r} is not allowed; allowed: the dashboard's, such as http://10.0.0.5:8265")
        _check_answers(address)
        from ray.exceptions import RayError
        from ray.job_submission import JobSubmissionClient

        self.address = address
        try:
            use_token()
            self._client = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise InputError(f"--address: {address}: {_reason(error)}") from None

    def submit(self, request: JobRequest) -> str:
        """Send the code and the configuration, and begin.

        Returns:
            The job's id.

        Raises:
            InputError: more than Ray takes is to be sent.
            RunError: the cluster refuses it.
        """
        job_id = f"scalepilot-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"
        check_size(request.modules)
        with working_dir(request) as folder:
            packages = [Path(module.__file__ or "").parent for module in (scalepilot, scalepilot_envs)]
            check_size([folder, *packages])
            runtime_env: dict[str, Any] = {
                "working_dir": str(folder),
                "py_modules": [str(path) for path in packages],
                "excludes": ["__pycache__"],
                "env_vars": {"PYTHONUNBUFFERED": "1", **dict(request.env)},
            }
            if request.pip:
                runtime_env["pip"] = list(request.pip)
            command = ["python", "-m", "scalepilot.cli", request.command, _CONFIG]
            command += ["--storage", request.storage or f"{RAY_LOGS}{job_id}.tar.gz"]
            try:
                self._client.submit_job(entrypoint=shlex.join(command), submission_id=job_id, runtime_env=runtime_env)
            except (RuntimeError, ValueError, ConnectionError) as error:
                raise RunError(f"{self.address}: refuses the job ({_reason(error)})") from None
        return job_id

    def follow(self, job_id: str, out: TextIO | None = None) -> str:
        """Print the job's log until it ends.

        Returns:
            How it ended: SUCCEEDED, FAILED or STOPPED.

        Raises:
            RunError: the cluster does not answer any more.
        """
        out, shown = out or sys.stdout, 0
        while True:
            try:
                # First the status: what the job says until then is in the log that is read after it.
                status = str(self._client.get_job_status(job_id).value)
                log = self._client.get_job_logs(job_id)
            except (RuntimeError, ConnectionError, OSError) as error:
                raise RunError(
                    f"{self.address}: does not answer ({_reason(error)}); the job may go on: scalepilot submit --attach {job_id}"
                    f" --address {self.address}"
                ) from None
            out.write(log[shown:])
            out.flush()
            shown = len(log)
            if status in _ENDED:
                return status
            time.sleep(_POLL_SECONDS)

    def explain(self, job_id: str) -> str:
        """Why a job did not succeed, in a line; empty where its log says so itself."""
        message = str(self._client.get_job_info(job_id).message or "")
        lines = [line for line in message.splitlines() if line.strip()]
        return lines[0] if lines and "driver" not in lines[0].lower() else ""

    def stop(self, job_id: str) -> None:
        """Ask a job to end."""
        with contextlib.suppress(RuntimeError, ConnectionError):
            self._client.stop_job(job_id)

    def fetch(self, job_id: str, folder: Path) -> Path:
        """Get the run that a job without storage left.

        Args:
            job_id: of a job that ended.
            folder: that collects runs.

        Returns:
            The run's folder.

        Raises:
            RunError: the cluster does not have it any more.
        """
        where = {"node_id": self._client.get_job_info(job_id).driver_node_id, "filename": f"{job_id}.tar.gz", "lines": -1}
        # The client has no word of its own for the log API; this one sends the token along.
        answer = self._client._do_request("GET", f"/api/v0/logs/file?{urllib.parse.urlencode(where)}")
        if answer.status_code != 200:
            raise RunError(f"{job_id}: its run cannot be fetched ({answer.text[:200]}); give --storage a URI")
        with tempfile.TemporaryDirectory(prefix="scalepilot-") as temporary:
            archive = Path(temporary, "run.tar.gz")
            archive.write_bytes(answer.content)
            folder.mkdir(parents=True, exist_ok=True)
            return unpack(archive, folder)


@contextlib.contextmanager
def working_dir(request: JobRequest) -> Iterator[Path]:
    """A folder with the configuration, recorded workloads and modules, and nothing else, for the length of a `with` block.

    Every process of a job begins in its copy, where Python looks for modules, too.

    Raises:
        InputError: a file cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="scalepilot-") as temporary:
        folder = Path(temporary)
        values = _with_traces(request.values, folder, {})
        for source in request.modules:
            try:
                if source.is_dir():
                    shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns(*_NOT_SENT))
                else:
                    (folder / source.name).write_bytes(read_bytes(source))
            except (OSError, shutil.Error) as error:
                raise InputError(f"{source}: cannot be sent ({_reason(error)})") from None
        (folder / _CONFIG).write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
        yield folder


def missing_traces(values: Any) -> list[str]:
    """Recorded workloads that a configuration names and that are no files here: the cluster must have them."""
    return [path for path in dict.fromkeys(_traces(values)) if not Path(path).is_file()]


def _traces(values: Any, key: object = "") -> Iterator[str]:
    """The paths of recorded workloads in a configuration: of sections of kind trace, and what a sweep tries as one's path."""
    if isinstance(values, Mapping):
        if values.get("kind") == "trace" and isinstance(values.get("path"), str):
            yield values["path"]
        for name, value in values.items():
            yield from _traces(value, name)
    elif isinstance(values, list | tuple):
        for value in values:
            if key == "workload.path" and isinstance(value, str):
                yield value
            yield from _traces(value)


def _with_traces(values: Any, folder: Path, sent: dict[str, str], key: object = "") -> Any:
    """Plain data with every recorded workload that is a file here copied into the folder, under its own name and suffix."""
    if isinstance(values, Mapping):
        copied = {name: _with_traces(value, folder, sent, name) for name, value in values.items()}
        if values.get("kind") == "trace" and isinstance(values.get("path"), str):
            copied["path"] = _sent(values["path"], folder, sent)
        return copied
    if isinstance(values, list | tuple):
        is_path = key == "workload.path"
        return [_sent(v, folder, sent) if is_path and isinstance(v, str) else _with_traces(v, folder, sent) for v in values]
    return values


def _sent(path: str, folder: Path, sent: dict[str, str]) -> str:
    if not Path(path).is_file():
        return path
    if path not in sent:
        # Its name is that of the workload in reports; of two with one name the second has a folder of its own.
        place = Path(_TRACES, Path(path).name)
        if (folder / place).exists():
            place = Path(_TRACES, str(len(sent)), Path(path).name)
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(read_bytes(Path(path)))
        sent[path] = place.as_posix()
    return sent[path]


def check_size(folders: Sequence[Path]) -> None:
    """Refuse what Ray would refuse after reading all of it.

    Raises:
        InputError: a folder is too large.
    """
    for folder in folders:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        if size > _MOST_UPLOAD_BYTES:
            raise InputError(
                f"{folder}: {size / 2**20:.0f} MiB are to be sent; allowed: up to {_MOST_UPLOAD_BYTES // 2**20} MiB (put"
                " a large trace where every node sees it, and give its path there)"
            )


def _check_answers(address: str) -> None:
    """Check within seconds that somebody answers: Ray's client waits for as long as the system does.

    Raises:
        InputError: nobody does.
    """
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/api/version", timeout=_ANSWER_SECONDS):  # noqa: S310 - http(s) alone
            return
    except urllib.error.HTTPError:
        # Such as 401: the token is looked at later.
        return
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"--address: {address}: no cluster's dashboard answers ({reason})") from None


def _reason(error: Exception) -> str:
    text = str(error)
    if "401" in text or "403" in text or "authentication" in text.lower():
        return (
            "the token is missing or wrong; allowed: RAY_AUTH_MODE=token with the cluster's token in RAY_AUTH_TOKEN, or the path"
            " of a file that holds it in RAY_AUTH_TOKEN_PATH (default: ~/.ray/auth_token)"
        )
    return text.splitlines()[0][:300] if text else type(error).__name__


__all__ = ["JobRequest", "Jobs", "check_size", "missing_traces", "working_dir"]
