"""The command line: one module a command, heavy imports inside the command's `run`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from scalepilot import __version__
from scalepilot.errors import ScalepilotError

# name → module; each has HELP, add_arguments(parser) and run(arguments) → exit code.
COMMANDS = {
    "train": "scalepilot.cli.train",
    "evaluate": "scalepilot.cli.evaluate",
    "compare": "scalepilot.cli.compare",
    "report": "scalepilot.cli.report",
    "tune": "scalepilot.cli.tune",
    "crosscheck": "scalepilot.cli.crosscheck",
    "submit": "scalepilot.cli.submit",
    "runs": "scalepilot.cli.runs",
    "study": "scalepilot.cli.study",
    "demo": "scalepilot.cli.demo",
    "plot": "scalepilot.cli.plot",
    "verify": "scalepilot.cli.verify",
    "serve": "scalepilot.cli.serve",
    "policy": "scalepilot.cli.policy",
    "workload": "scalepilot.cli.workload",
    "env": "scalepilot.cli.env",
    "doctor": "scalepilot.cli.doctor",
}
INTERRUPTED = 130
_REMEDY = "pip install 'scalepilot[train]' ('scalepilot[serve]' to serve), on a cluster in the image of every node"


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; importing the command modules costs milliseconds only."""
    parser = _Parser(prog="scalepilot", description="Trains autoscaling policies, proves what they are worth and serves them.")
    parser.add_argument("--version", action="version", version=f"scalepilot {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, module_name in COMMANDS.items():
        module = importlib.import_module(module_name)
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; errors a user can cause are one line and an exit code."""
    arguments = build_parser().parse_args(argv)
    # For what says how to make it again.
    arguments.given = list(sys.argv[1:] if argv is None else argv)
    try:
        return int(arguments.run(arguments))
    except ScalepilotError as error:
        print(f"scalepilot {arguments.command}: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "scalepilot").partition(".")[0] in ("scalepilot", "scalepilot_envs"):
            raise
        print(f"scalepilot {arguments.command}: needs {error.name}, which is not installed: {_REMEDY}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"scalepilot {arguments.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (… | head): nothing left to say, and Python must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


__all__ = ["COMMANDS", "build_parser", "main"]
