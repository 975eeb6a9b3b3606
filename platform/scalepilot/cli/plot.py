"""`scalepilot plot RUN`: every plot of a run drawn again from what it stored."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from scalepilot.cli.streams import note

HELP = "draw every plot of a run again from what it stored (its log alone is enough for a learning curve)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `plot`."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run folder, finished or not")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write them here (default: RUN/plots)")
    parser.add_argument("--field", nargs=2, metavar=("X", "Y"), help="fields across and up the policy map")
    parser.add_argument("--json", action="store_true", help="print what was drawn as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Draw; 0 when anything was drawn, 1 when nothing could be."""
    from scalepilot.errors import InputError
    from scalepilot.evaluate.comparison import Comparison
    from scalepilot.evaluate.store import SUMMARY_FILE, read_evaluation
    from scalepilot.files.atomic import write_bytes
    from scalepilot.learn.task import Task
    from scalepilot.report.run_plots import RunPictures
    from scalepilot.runs.folder import RunFolder
    from scalepilot.runs.stored_metrics import stored_metrics

    folder, config = RunFolder.open(arguments.folder)
    comparison = None
    notes = []
    if (folder.evaluation / SUMMARY_FILE).exists():
        try:
            stored = read_evaluation(folder.evaluation)
            comparison = stored if isinstance(stored, Comparison) else None
        except InputError as error:
            notes.append(f"evaluation: left out: {error}")
    out = arguments.out or folder.plots
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {out} cannot be made ({error.strerror})") from None
    fields = tuple(arguments.field) if arguments.field else None
    pictures = RunPictures(config, folder, lambda: Task(config), comparison, fields)
    drawn, left_out = [], {}
    for plot in pictures.plots():
        if plot.svg is None:
            left_out[plot.name] = plot.reason
        else:
            write_bytes(out / plot.name, plot.svg.encode())
            drawn.append(plot.name)
    _, source = stored_metrics(folder, config)
    if arguments.json:
        print(json.dumps({"out": str(out), "metrics": source, "drawn": drawn, "left_out": left_out}, indent=1))
    else:
        for name in drawn:
            print(f"drawn:    {out / name}" + (f"  (from {source})" if name == "learning_curve.svg" else ""))
        for name, reason in left_out.items():
            print(f"not drawn: {name}: {reason}")
    for line in notes:
        note("plot", line)
    return 0 if drawn else 1
