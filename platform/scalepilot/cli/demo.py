"""`scalepilot demo POLICY…`: policies side by side, live in the terminal, as a video or as a page."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from scalepilot.report.replay.autoscale_replay import AutoscaleReplay
    from scalepilot.report.replay.env_replay import EnvReplay

HELP = "watch policies side by side: live in the terminal, as GIF, MP4 or a page"
_DELAY_SECONDS, _FRAMES_PER_SECOND = 0.05, 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `demo`."""
    parser.add_argument(
        "policies", nargs="+", metavar="POLICY", help="run or policy folders, or names of rules (hpa, kpa:target=0.8, optimum …)"
    )
    parser.add_argument("--env", metavar="ID", help="environment for rules alone (default: the policy's, or Autoscale-v0)")
    parser.add_argument(
        "--workload", dest="pattern", metavar="W", help="workload kind such as spike, or a trace's file (default: its own)"
    )
    parser.add_argument(
        "--peak-rps", type=float, metavar="RPS", help="scale the pattern's peak to this; 0 keeps it (default: 500)"
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="steps at most (default: 480 of Autoscale, else the whole episode)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of window and arrivals (default: the most varied window)")
    parser.add_argument("--alone", action="store_true", help="without HPA, optimum or another rule beside")
    parser.add_argument(
        "--delay", type=float, default=_DELAY_SECONDS, metavar="SECONDS", help="pause a step on the terminal (default: 0.05)"
    )
    parser.add_argument("--no-render", action="store_true", help="only the table in the end")
    parser.add_argument("--gif", type=Path, metavar="FILE", help="write a film of it")
    parser.add_argument("--mp4", type=Path, metavar="FILE", help="the same as MP4 (extra video)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with a scrubber")
    parser.add_argument("--json", action="store_true", help="print the table as JSON; nothing is shown live")


def run(arguments: argparse.Namespace) -> int:
    """Run, show and sum up; 130 when interrupted."""
    from scalepilot.errors import InputError
    from scalepilot.report.replay.lineup import DemoOptions, make_replay

    if not 0 <= arguments.delay <= 60:
        raise InputError(f"--delay: {arguments.delay:g} is not allowed; allowed: 0 to 60 seconds")
    if arguments.seed is not None and arguments.seed < 0:
        raise InputError(f"--seed: {arguments.seed} is not allowed; allowed: whole numbers from 0")
    files = [path for path in (arguments.gif, arguments.mp4, arguments.html) if path is not None]
    if arguments.mp4 is not None:
        from scalepilot.report.replay.video import check_mp4

        check_mp4()
    replay = make_replay(
        DemoOptions(
            arguments.policies,
            env=arguments.env,
            pattern=arguments.pattern,
            peak_rps=arguments.peak_rps,
            steps=arguments.steps,
            seed=arguments.seed,
            alone=arguments.alone,
            filmed=bool(files),
        )
    )
    interrupted = False
    try:
        if sys.stdout.isatty() and not (arguments.no_render or arguments.json):
            _watch(replay, arguments.delay)
        else:
            _fly(replay)
    except KeyboardInterrupt:
        interrupted = True
    if files and replay.step_index:
        _write(replay, arguments)
    if arguments.json:
        print(json.dumps({"policies": replay.summary(), "interrupted": interrupted}, indent=1, ensure_ascii=False))
    else:
        from scalepilot.cli.output import console

        console().print(summary_table(replay))
        for path in files:
            print(f"written: {path}")
    return 130 if interrupted else 0


def _watch(replay: AutoscaleReplay | EnvReplay, delay: float) -> None:
    """Live on the terminal; it is left as it was, whatever happens."""
    from rich.live import Live

    from scalepilot.cli.output import console
    from scalepilot.report.replay.env_replay import EnvReplay
    from scalepilot.report.replay.terminal import autoscale_screen, env_screen

    out = console()
    drawn = 0.0

    def screen() -> object:
        width, height = out.size
        return env_screen(replay, width, height) if isinstance(replay, EnvReplay) else autoscale_screen(replay, width, height)

    with Live(console=out, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
        while replay.advance():
            now = time.monotonic()
            if delay >= 1 / _FRAMES_PER_SECOND or now - drawn >= 1 / _FRAMES_PER_SECOND:
                drawn = now
                live.update(screen(), refresh=True)  # type: ignore[arg-type]
            time.sleep(delay)
    # The last frame stays above the table.
    out.print(screen())


def _fly(replay: AutoscaleReplay | EnvReplay) -> None:
    from scalepilot.progress import Progress

    progress = Progress("evaluating")
    progress.begin(replay.num_steps)
    while replay.advance():
        progress.update(replay.step_index)
    progress.end()


def _write(replay: AutoscaleReplay | EnvReplay, arguments: argparse.Namespace) -> None:
    from scalepilot.files.atomic import write_bytes
    from scalepilot.report.replay.film import film_frames
    from scalepilot.report.replay.page import replay_page
    from scalepilot.report.replay.video import gif, mp4

    if arguments.gif is not None or arguments.mp4 is not None:
        frames, frames_per_second = film_frames(replay)
        if arguments.gif is not None:
            write_bytes(arguments.gif, gif(frames, frames_per_second))
        if arguments.mp4 is not None:
            mp4(frames, frames_per_second, arguments.mp4)
    if arguments.html is not None:
        write_bytes(arguments.html, replay_page(replay).encode())


def summary_table(replay: AutoscaleReplay | EnvReplay) -> Table:
    """What everybody came to, as a table."""
    from scalepilot.report.replay.env_replay import EnvReplay
    from scalepilot.report.words.tables import plain_table

    table = plain_table(f"{replay.title}: {replay.step_index} steps", "")
    table.add_column("", overflow="fold")
    rows = replay.summary()
    if isinstance(replay, EnvReplay):
        headings = ["return", "steps", "episode"]
        cells = [[f"{r['episode_return']:,.2f}", f"{r['steps']:,}", "over" if r["ended"] else "cut off"] for r in rows]
    else:
        headings = ["J/h", "replicas", "late", "moves"]
        cells = [
            [f"{r['J_per_hour']:.3f}", f"{r['replicas_mean']:.1f}", f"{r['late_share']:.2%}", f"{r['actions']}"] for r in rows
        ]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row, values in zip(rows, cells, strict=True):
        table.add_row(row["policy"], *values)
    return table
