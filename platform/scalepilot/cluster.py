"""Ray: one local cluster started and ended by us, or somebody else's joined and left."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from scalepilot.config import ResourcesConfig
from scalepilot.errors import InputError, RunError

# The local object store holds a few rollouts, not a data set.
_OBJECT_STORE_BYTES = 512 * 1024 * 1024


@contextlib.contextmanager
def connected(resources: ResourcesConfig) -> Iterator[None]:
    """Ray for the length of a `with` block; inside a Ray job the job's cluster is joined.

    Args:
        resources: address, runners and GPUs.

    Raises:
        InputError: the address cannot be reached.
        RunError: a local Ray cannot start.
    """
    # Ray 2.60 warns about an accelerator setting nobody here made; choosing the coming behaviour silences it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    address = resources.address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        else:
            ray.init(
                # One for the driver, each env runner and each learner.
                num_cpus=resources.num_env_runners + resources.num_learners + 1,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except (ConnectionError, ValueError) as error:
        raise InputError(f"resources.address: {address!r} cannot be reached ({str(error).splitlines()[0]})") from None
    except (RuntimeError, OSError) as error:
        raise RunError(f"ray: cannot start here ({str(error).splitlines()[0]})") from error
    try:
        yield
    finally:
        ray.shutdown()
