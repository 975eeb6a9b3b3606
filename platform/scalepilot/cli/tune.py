"""`scalepilot tune SWEEP`: many trials of one experiment on Ray Tune, a leaderboard, the best policy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalepilot.experiments.sweep.plan import PlannedSweep
    from scalepilot.experiments.sweep.verdict import SweepBoard
    from scalepilot.runs.folder import RunFolder

HELP = "search an experiment's settings with Ray Tune: grid, random, ASHA, PBT or Optuna"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `tune`."""
    parser.add_argument(
        "sweep", nargs="?", type=Path, metavar="SWEEP", help="sweep YAML, such as tune_configs/sweeps/resource-manager.yaml"
    )
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="resume a stopped sweep; nothing is trained twice")
    parser.add_argument(
        "--jobs", dest="concurrency", type=int, metavar="N", help="trials at once (default: as many as the cores hold)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the experiment, such as ppo.gamma=0.97; repeatable",
    )
    parser.add_argument("--address", help="Ray cluster to train on (auto, ray://…); a local Ray by default")
    parser.add_argument("--storage", metavar="URI", help="take a copy of the finished sweep there (s3://…, file:///…)")
    parser.add_argument("--json", action="store_true", help="print summary.json instead of the leaderboard")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of a sweep and exit")


def run(arguments: argparse.Namespace) -> int:
    """Search; 130 when stopped early."""
    import json

    from scalepilot.errors import InputError
    from scalepilot.experiments.sweep.config import json_schema
    from scalepilot.experiments.sweep.plan import load_sweep

    if arguments.schema:
        print(json.dumps(json_schema(), indent=1))
        return 0
    if (arguments.sweep is None) == (arguments.resume is None):
        raise InputError("give either SWEEP or --resume FOLDER")
    if arguments.resume is not None and (arguments.set or arguments.concurrency or arguments.address):
        raise InputError("--set, --jobs, --address: a resumed sweep keeps its own sweep.yaml; allowed with SWEEP only")
    from scalepilot.cluster.storage import check_storage, store
    from scalepilot.experiments.sweep.run import create_folder, open_folder
    from scalepilot.files.lock import locked
    from scalepilot.files.stored import read_text
    from scalepilot.learn.devices import choose_device
    from scalepilot.runs.folder import RunFolder

    if arguments.storage:
        check_storage(arguments.storage)
    if arguments.resume is not None:
        folder, plan = arguments.resume, open_folder(arguments.resume)
    else:
        overrides = [*arguments.set]
        if arguments.address:
            overrides.append(f"resources.address={arguments.address}")
        plan = load_sweep(arguments.sweep, overrides, arguments.concurrency)
        # What cannot be trained should not leave an empty sweep behind.
        if plan.example.resources.address is None:
            choose_device(plan.example.resources)
        folder = create_folder(plan)
    own = RunFolder(folder)
    own.read_status()
    with locked(folder, "the sweep"):
        finished, board = _search(plan, folder, own)
    if not finished or board is None:
        print(f"Stopped. What it has so far: {folder}\n{_go_on(folder)}")
        return 130
    stored = store(folder, arguments.storage) if arguments.storage else None
    if arguments.json:
        print(read_text(folder / "summary.json"))
        return 0
    from scalepilot.cli.output import console
    from scalepilot.experiments.sweep.verdict import leaderboard

    out = console()
    out.print(leaderboard(board))
    out.print(board.verdict)
    print(f"report:  {folder / 'report.html'}")
    print(f"policy:  {folder / 'policy'}")
    if stored:
        print(f"stored:  {stored}")
    return 0


def _go_on(folder: Path) -> str:
    return f"Resume: scalepilot tune --resume {folder}"


def _search(plan: PlannedSweep, folder: Path, own: RunFolder) -> tuple[bool, SweepBoard | None]:
    """Train what is missing, and evaluate; what becomes of it stands in the sweep's run.json."""
    from scalepilot.experiments.sweep.run import run_sweep
    from scalepilot.experiments.sweep.write import write_sweep

    own.write_status("running")
    board = None
    try:
        finished = run_sweep(plan, folder)
        if finished:
            board = write_sweep(plan, folder)
    except KeyboardInterrupt:
        own.write_status("interrupted")
        print(_go_on(folder))
        raise
    except Exception as error:
        own.write_status("failed", error=str(error))
        raise
    own.write_status("finished" if finished else "interrupted")
    return finished, board
