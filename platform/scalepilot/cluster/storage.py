"""Where a finished run is taken to: any file system that pyarrow knows (file://, s3://, gs://, hdfs://), or back through Ray.

A job on a cluster writes its run to a disk that goes away with its node. `ray-logs:NAME` puts an archive among the logs of Ray's
session instead, from where the dashboard hands it to whoever submitted the job: that needs no storage and no other port.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from scalepilot.errors import InputError, RunError

RAY_LOGS = "ray-logs:"
# For resuming on the cluster only, most of a run's bytes, and pickles: a run's checkpoints, and Ray Tune's with its state.
_LEFT_OUT = "checkpoint"
_TUNE_STATE = (".pkl", ".validate_storage_marker")
_ALLOWED = "allowed: a URI such as s3://bucket/runs, gs://bucket/runs or file:///mnt/runs"


def check_storage(uri: str) -> None:
    """Write and remove a small file, before anything is trained.

    Args:
        uri: of a folder.

    Raises:
        InputError: the URI is not allowed, or nothing can be written there.
    """
    if uri.startswith(RAY_LOGS):
        return
    system, folder = _opened(uri)
    probe = f"{folder}/.scalepilot-can-write"
    try:
        system.create_dir(folder, recursive=True)
        with system.open_output_stream(probe) as stream:
            stream.write(b"")
        system.delete_file(probe)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"--storage: {shown(uri)}: cannot be written ({_first_line(error)}); {_ALLOWED}") from None


def store(run: Path, uri: str) -> str:
    """Copy a run, or a sweep, without its checkpoints.

    Args:
        run: its folder.
        uri: of the folder that collects runs; the copy is <uri>/<name>/<run>, as under runs/.

    Returns:
        Where the copy is.

    Raises:
        RunError: it cannot be written; the run stays where it is.
    """
    if uri.startswith(RAY_LOGS):
        return str(_archive_in_logs(run, uri.removeprefix(RAY_LOGS)))
    system, folder = _opened(uri)
    place = f"{folder}/{run.parent.name}/{run.name}"
    try:
        # run.json says that a run is finished: last, so that what it says of a copy is true.
        for path in sorted(_files(run), key=lambda path: path.name == "run.json"):
            target = f"{place}/{path.relative_to(run).as_posix()}"
            system.create_dir(target.rpartition("/")[0], recursive=True)
            with system.open_output_stream(target) as stream:
                stream.write(path.read_bytes())
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"--storage: {shown(uri)}: cannot be written ({_first_line(error)}); the run stays in {run}") from None
    return f"{shown(uri)}/{run.parent.name}/{run.name}"


def shown(uri: str) -> str:
    """A URI without the credentials and options that it may hold."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}".rstrip("/") if rest else uri


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack what `store` put among Ray's logs.

    Args:
        archive: the file.
        folder: that collects runs.

    Returns:
        The run's folder.

    Raises:
        RunError: the archive is damaged, or would write elsewhere.
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            names = tar.getnames()
            tar.extractall(folder, filter="data")
    except (OSError, tarfile.TarError, EOFError) as error:
        raise RunError(f"{archive}: is no run ({_first_line(error)})") from None
    if not names:
        raise RunError(f"{archive}: is empty")
    return folder.joinpath(*Path(names[0]).parts[:2])


def _archive_in_logs(run: Path, name: str) -> Path:
    from scalepilot.cluster.connection import session_logs

    path = session_logs() / name
    try:
        with tarfile.open(path, "w:gz") as tar:
            for file in _files(run):
                tar.add(file, arcname=str(Path(run.parent.name, run.name, file.relative_to(run))))
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({_first_line(error)}); the run stays in {run}") from None
    return path


def _opened(uri: str) -> tuple[Any, str]:
    try:
        if "://" not in uri:
            raise ValueError("no scheme")
        system, folder = fs.FileSystem.from_uri(uri)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise InputError(f"--storage: {shown(uri)!r} is not allowed ({_first_line(error)}); {_ALLOWED}") from None
    return system, folder.rstrip("/")


def _files(run: Path) -> list[Path]:
    return [
        path
        for path in sorted(run.rglob("*"))
        if path.is_file()
        and not any(part.startswith(_LEFT_OUT) for part in path.relative_to(run).parts[:-1])
        and not path.name.endswith(_TUNE_STATE)
    ]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


__all__ = ["RAY_LOGS", "check_storage", "store", "unpack"]
