"""`scalepilot runs [FOLDER…]`: what was trained or searched, how far it is, what it reached."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalepilot.report.run_list import RunEntry

HELP = "list runs and sweeps with status, result and speed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `runs`."""
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("runs")], metavar="FOLDER", help="runs, or folders of them (default: runs)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="one table of what is finished, training seeds together")
    form.add_argument("--html", type=Path, metavar="FILE", help="a page with links to the reports")
    form.add_argument("--json", action="store_true", help="every run as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Read and print.

    Raises:
        InputError: a run is damaged; it is named, and the others are listed.
    """
    from scalepilot.cli.output import console
    from scalepilot.errors import InputError
    from scalepilot.report.run_list import find_runs, worths
    from scalepilot.report.run_tables import runs_page, runs_table, worth_markdown

    runs = find_runs(arguments.folders)
    if arguments.json:
        print(json.dumps([_as_json(entry) for entry in runs], indent=1, ensure_ascii=False, allow_nan=False))
    elif arguments.html is not None:
        from scalepilot.files.atomic import write_bytes

        try:
            write_bytes(arguments.html, runs_page(runs, arguments.html).encode())
        except OSError as error:
            raise InputError(f"--html: {arguments.html}: cannot be written ({error.strerror})") from None
        print(f"page:  {arguments.html}")
    elif arguments.markdown:
        print(worth_markdown(worths(runs)))
    else:
        console().print(runs_table(runs))
    damaged = [entry.problem for entry in runs if entry.problem]
    if damaged:
        more = f" (and {len(damaged) - 1} more, listed as unreadable)" if len(damaged) > 1 else ""
        raise InputError(f"{damaged[0]}{more}")
    return 0


def _as_json(entry: RunEntry) -> dict[str, Any]:
    from dataclasses import asdict

    from scalepilot.evaluate.store import json_number

    values = asdict(entry)
    del values["sameness"]
    mean, low, high = (json_number(value) for value in values.pop("advantage"))
    return values | {"path": str(entry.path), "advantage": {"mean": mean, "low": low, "high": high}}
