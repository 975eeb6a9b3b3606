"""Real Ray, at most once a session: small, token-protected, its files under pytest's temporary folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Read when Ray is first imported, so set before any test module does.
RAY_TOKEN = "scalepilot-tests-only-0123456789abcdef"
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = RAY_TOKEN
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Unix sockets allow 107 bytes; Ray appends about 75 of its own.
_LONGEST_FOLDER = 30


@pytest.fixture(scope="session")
def ray_tmpdir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder short enough for Ray's sockets, under pytest's own where that is possible."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen") else base) / "r"
    if len(str(folder)) <= _LONGEST_FOLDER:
        folder.mkdir(exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="sp", dir="/tmp", ignore_cleanup_errors=True) as short:
        yield Path(short)


@pytest.fixture(scope="session")
def ray_session(ray_tmpdir: Path) -> Iterator[None]:
    """The session's one local cluster."""
    import ray

    ray.init(
        num_cpus=3,
        include_dashboard=False,
        object_store_memory=200 * 1024**2,
        logging_level="ERROR",
        log_to_driver=False,
        _temp_dir=str(ray_tmpdir),
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def cli_env(ray_tmpdir: Path) -> dict[str, str]:
    """Environment for `scalepilot` as a subprocess, which starts and ends a Ray of its own."""
    return {**os.environ, "RAY_TMPDIR": str(ray_tmpdir), "PYTHONUNBUFFERED": "1"}
