"""`scalepilot report --plots RUN`: every plot of a run drawn again from what it stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from scalepilot.cli.streams import note


def draw(run: Path, into: Path | None, across_and_up: Sequence[str] | None, *, as_json: bool) -> int:
    """Draw; 0 when anything was drawn, 1 when nothing could be.

    Args:
        run: its folder; the log alone is enough for a learning curve.
        into: the folder of the plots; the run's own if None.
        across_and_up: fields of the policy map; its own choice if None.
        as_json: print what was drawn as JSON.
    """
    from scalepilot.errors import InputError
    from scalepilot.evaluate.comparison import Comparison
    from scalepilot.evaluate.store import SUMMARY_FILE, read_evaluation
    from scalepilot.files.atomic import write_bytes
    from scalepilot.learn.task import Task
    from scalepilot.report.run_plots import RunPictures
    from scalepilot.runs.folder import RunFolder
    from scalepilot.runs.stored_metrics import stored_metrics

    folder, config = RunFolder.open(run)
    comparison = None
    notes = []
    if (folder.evaluation / SUMMARY_FILE).exists():
        try:
            stored = read_evaluation(folder.evaluation)
            comparison = stored if isinstance(stored, Comparison) else None
        except InputError as error:
            notes.append(f"evaluation: left out: {error}")
    out = into or folder.plots
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {out} cannot be made ({error.strerror})") from None
    fields = (across_and_up[0], across_and_up[1]) if across_and_up else None
    pictures = RunPictures(config, folder, lambda: Task(config), comparison, fields)
    drawn, left_out = [], {}
    for plot in pictures.plots():
        if plot.svg is None:
            left_out[plot.name] = plot.reason
        else:
            write_bytes(out / plot.name, plot.svg.encode())
            drawn.append(plot.name)
    _, source = stored_metrics(folder, config)
    if as_json:
        print(json.dumps({"out": str(out), "metrics": source, "drawn": drawn, "left_out": left_out}, indent=1))
    else:
        for name in drawn:
            print(f"drawn:    {out / name}" + (f"  (from {source})" if name == "learning_curve.svg" else ""))
        for name, reason in left_out.items():
            print(f"not drawn: {name}: {reason}")
    for line in notes:
        note("report", line)
    return 0 if drawn else 1
