"""`scalepilot submit CONFIG`: train, or search, as a job of a Ray cluster; the run comes back."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalepilot.cluster.jobs import JobRequest, Jobs

HELP = "run an experiment or a sweep as a job on a Ray cluster and fetch the run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `submit`."""
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="experiment or sweep YAML")
    parser.add_argument("--address", metavar="URL", help="the cluster's dashboard, http://host:8265 (default: RAY_ADDRESS)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key; repeatable")
    parser.add_argument("--storage", metavar="URI", help="where the job takes its run to (s3://…, file:///…; default: back here)")
    parser.add_argument(
        "--out", dest="output", type=Path, default=Path("runs"), metavar="FOLDER", help="where it comes back to (default: runs)"
    )
    parser.add_argument("--pip", action="append", default=[], metavar="PACKAGE", help="the nodes install this first; repeatable")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="variable of the job; repeatable")
    parser.add_argument("--no-wait", action="store_true", help="begin and go; --attach follows later")
    parser.add_argument("--attach", metavar="JOB", help="follow a job that was begun before, and fetch its run")


def run(arguments: argparse.Namespace) -> int:
    """Submit, follow, fetch; 1 where the job fails."""
    from scalepilot.cluster.jobs import Jobs
    from scalepilot.errors import InputError

    address = arguments.address or os.environ.get("RAY_ADDRESS")
    if not address:
        raise InputError("--address: is missing; allowed: the cluster's dashboard, such as http://10.0.0.5:8265")
    if (arguments.config is None) == (arguments.attach is None):
        raise InputError("give either CONFIG or --attach JOB")
    if arguments.attach is not None:
        return _end(arguments, Jobs(address), arguments.attach)
    request = _request(arguments)
    jobs = Jobs(address)
    job_id = jobs.submit(request)
    print(f"job {job_id} on {address}", file=sys.stderr)
    if arguments.no_wait:
        print(f"follow:  scalepilot submit --attach {job_id} --address {address}")
        return 0
    return _end(arguments, jobs, job_id)


def _request(arguments: argparse.Namespace) -> JobRequest:
    from scalepilot.cli.streams import note
    from scalepilot.cluster.jobs import JobRequest, missing_traces
    from scalepilot.config import load_config, read_yaml
    from scalepilot.errors import InputError
    from scalepilot.experiments.sweep.plan import envs_of, load_sweep, whole_mapping
    from scalepilot.files.env_modules import sources_of

    pairs = []
    for given in arguments.env:
        name, separator, value = given.partition("=")
        if not separator or not name:
            raise InputError(f"--env: {given!r} is not allowed; allowed: NAME=VALUE")
        pairs.append((name, value))
    others: dict[str, Any] = {"storage": arguments.storage, "pip": tuple(arguments.pip), "env": tuple(pairs)}
    values = read_yaml(arguments.config)
    # Devices are looked for on the cluster then, not on the node that the job's driver is on.
    there = [*arguments.set, "resources.address=auto"]
    if isinstance(values, dict) and "space" in values:
        command, sent = "tune", whole_mapping(load_sweep(arguments.config, there))
    else:
        command, sent = "train", load_config(arguments.config, there).to_mapping()
    for path in missing_traces(sent):
        note("submit", f"note: workload.path: {path} is not here; every node of the cluster must have it")
    modules = {place.name: place for env in envs_of(sent) for place in sources_of(env)}
    return JobRequest(command, sent, modules=tuple(modules.values()), **others)


def _end(arguments: argparse.Namespace, jobs: Jobs, job_id: str) -> int:
    try:
        status = jobs.follow(job_id)
    except KeyboardInterrupt:
        print(f"\nthe job goes on; follow:  scalepilot submit --attach {job_id} --address {jobs.address}", file=sys.stderr)
        print(f"end it:  ray job stop {job_id} --address {jobs.address}", file=sys.stderr)
        raise
    if status != "SUCCEEDED":
        reason = jobs.explain(job_id)
        print(f"job {job_id}: {status.lower()}{f' ({reason})' if reason else ''}", file=sys.stderr)
        return 1
    if arguments.storage is None:
        print(f"run:     {jobs.fetch(job_id, arguments.output)}")
    return 0
