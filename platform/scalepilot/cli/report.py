"""`scalepilot report RUN|FOLDER`: the page about a run or a comparison, from what is stored."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "write the report of a run or a stored comparison again, or its plots"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `report`."""
    parser.add_argument("folder", type=Path, metavar="RUN|FOLDER", help="a run, or a folder that compare --out wrote")
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="the HTML file (default: report.html in the folder); with --plots their folder"
    )
    parser.add_argument("--plots", action="store_true", help="draw every plot of a run again from what it stored, as SVG")
    parser.add_argument("--field", nargs=2, metavar=("X", "Y"), help="with --plots: fields across and up the policy map")
    parser.add_argument("--json", action="store_true", help="print where the page is and how large as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Write and say where."""
    from scalepilot.errors import InputError
    from scalepilot.evaluate.store import SUMMARY_FILE
    from scalepilot.report.run_report import write_comparison_report, write_run_report
    from scalepilot.runs.folder import RunFolder

    folder = arguments.folder
    if arguments.plots:
        from scalepilot.cli.plot import draw

        return draw(folder, arguments.out, arguments.field, as_json=arguments.json)
    if arguments.out is not None and arguments.out.is_dir():
        raise InputError(f"--out: {arguments.out} is a folder; allowed: an HTML file")
    try:
        if (folder / "config.yaml").is_file():
            path = write_run_report(*RunFolder.open(folder), arguments.out)
        elif (folder / SUMMARY_FILE).is_file():
            path = write_comparison_report(folder, arguments.out)
        else:
            raise InputError(f"{folder}: holds neither config.yaml nor {SUMMARY_FILE}; allowed: a run or a stored comparison")
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be used ({error.strerror or error})") from None
    if arguments.json:
        print(json.dumps({"report": str(path), "bytes": path.stat().st_size}))
    else:
        print(f"report: {path} ({path.stat().st_size / 1000:,.0f} kB)")
    return 0
