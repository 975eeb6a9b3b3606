"""`scalepilot evaluate`: the old name of `scalepilot compare`, which has had protocol v1 as its default ever since."""

from __future__ import annotations

import argparse
from pathlib import Path

from scalepilot.cli import compare
from scalepilot.cli.streams import note

HELP = "the former name of compare"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `compare`, and what `evaluate` called them."""
    compare.add_arguments(parser)
    parser.add_argument("--protocol", choices=["v1"], help=argparse.SUPPRESS)
    parser.add_argument("--trace", type=Path, nargs="+", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--rules", choices=["hpa", "all"], help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Compare."""
    arguments.workload = [*arguments.workload, *map(str, arguments.trace)]
    if arguments.rules == "all" and arguments.baseline is None:
        arguments.baseline = ["all"]
    code = compare.run(arguments)
    new = ["scalepilot", "compare", *map(str, arguments.policies), *(f"--workload {path}" for path in arguments.trace)]
    if arguments.rules == "all":
        new.append("--baseline all")
    # An error is one line; this is for what works.
    note("evaluate", f"is now compare, and goes with the next release; here: {' '.join(new)}")
    return code
