"""`scalepilot verify [RUN…|POLICY…]`: what is wrong with which, and what to do about it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HELP = "check runs and policies: files, hashes and decisions; re-evaluate stored results"
_RUNS = Path("runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `verify`."""
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="RUN_OR_POLICY", help="run or policy folders (default: every run under ./runs)"
    )
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="evaluate all test episodes again, not three, and plan the optimum again (minutes)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Check; 1 where anything is wrong that matters.

    Raises:
        InputError: there is nothing to check, or a folder is neither run nor policy.
    """
    from dataclasses import asdict

    from scalepilot.errors import InputError
    from scalepilot.policy import located
    from scalepilot.progress import Progress
    from scalepilot.verify import verify_path

    folders = [located(path) for path in arguments.folders] or sorted(path.parent for path in _RUNS.glob("*/*/config.yaml"))
    if not folders:
        raise InputError(f"{_RUNS}: holds no runs; allowed: run or policy folders, or a folder {_RUNS} here")
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    verdicts = []
    progress = Progress("verifying", "folders")
    progress.begin(len(folders))
    for done, folder in enumerate(folders, start=1):
        verdicts.append(verify_path(folder, thorough=arguments.thorough))
        if len(folders) > 1:
            progress.update(done)
    progress.end()
    sound = all(verdict.is_sound for verdict in verdicts)
    if arguments.json:
        shown = [
            {
                "path": str(v.path),
                "kind": v.kind,
                "sound": v.is_sound,
                "checks": list(v.checks),
                "findings": [asdict(f) for f in v.findings],
            }
            for v in verdicts
        ]
        print(json.dumps({"sound": sound, "verified": shown}, indent=1, ensure_ascii=False))
        return 0 if sound else 1
    for verdict in verdicts:
        if not verdict.findings:
            print(f"ok       {verdict.path}  ({', '.join(verdict.checks)})")
        for finding in verdict.findings:
            print(f"{finding.severity:<8} {verdict.path} · {finding.where}: {finding.what}; {finding.mend}")
    if len(verdicts) > 1:
        bad = sum(not v.is_sound for v in verdicts)
        print(f"{len(verdicts)} checked, {bad} with errors", file=sys.stderr)
    return 0 if sound else 1
