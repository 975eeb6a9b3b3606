"""The command line: one module a command, heavy imports inside the command's `run`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from scalepilot import __version__
from scalepilot.cli import streams
from scalepilot.cli.checks import check_arguments
from scalepilot.cli.old_names import renamed
from scalepilot.errors import InputError, ScalepilotError, did_you_mean, printable
from scalepilot.files.ownership import check_listed_modules

# name → module; each has HELP, add_arguments(parser) and run(arguments) → exit code.
COMMANDS = {
    "init": "scalepilot.cli.init",
    "train": "scalepilot.cli.train",
    "compare": "scalepilot.cli.compare",
    "report": "scalepilot.cli.report",
    "tune": "scalepilot.cli.tune",
    "submit": "scalepilot.cli.submit",
    "runs": "scalepilot.cli.runs",
    "study": "scalepilot.cli.study",
    "demo": "scalepilot.cli.demo",
    "verify": "scalepilot.cli.verify",
    "serve": "scalepilot.cli.serve",
    "operate": "scalepilot.cli.operate",
    "policy": "scalepilot.cli.policy",
    "workload": "scalepilot.cli.workload",
    "env": "scalepilot.cli.env",
    "doctor": "scalepilot.cli.doctor",
}
INTERRUPTED = 130
# Letters of a message: a name that fills the screen hides what is wrong with it.
_LONGEST = 1500
_REMEDY = "pip install 'scalepilot[train]' ('scalepilot[serve]' to serve), on a cluster in the image of every node"


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors, which notes what is given."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in (None, "store"):
            self.register("action", name, _Noted)

    def error(self, message: str) -> None:  # type: ignore[override]
        wrong = re.search(r"argument COMMAND: invalid choice: '([^']*)'", message)
        hint = did_you_mean(wrong[1], COMMANDS) if wrong else ""
        self.exit(2, f"{self.prog}: {printable(message)[:_LONGEST]}{hint} (see {self.prog} --help)\n")


class _Noted(argparse._StoreAction):
    """Notes which options are given: a default says nothing of that. Of an option that is repeated the last counts."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        vars(namespace).setdefault("_given", set()).add(self.dest)
        super().__call__(parser, namespace, values, option_string)


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """The command line; importing the command modules costs milliseconds only.

    Args:
        command: whose arguments are wanted; those of every command where it is empty.
    """
    parser = _Parser(
        prog="scalepilot",
        description="Train autoscaling policies, compare them with tuned rules, serve and operate them.",
        epilog="Start with: scalepilot init NAME. Documentation: README.md and docs/.",
    )
    parser.add_argument("--version", action="version", version=f"scalepilot {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, module_name in COMMANDS.items():
        module = importlib.import_module(module_name)
        parser_of_command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        if command in ("", name):
            module.add_arguments(parser_of_command)
            parser_of_command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; errors that a user can cause are one line and an exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        streams.prepare()
    command = next((text for text in given if text in COMMANDS), "")
    try:
        _check_text(given)
        given = renamed(given)
        command = next((text for text in given if text in COMMANDS), "")
        arguments = build_parser(command).parse_args(given)
        # For what says how to make it again.
        arguments.given = given
        check_arguments(arguments)
        check_listed_modules()
        code = int(arguments.run(arguments))
        streams.flush()
        return code
    except SystemExit:
        # --help, --version, or an error of argparse's.
        try:
            streams.flush()
        except OSError as error:
            streams.abandon()
            return _end(command, *streams.system_error(error))
        raise
    except ScalepilotError as error:
        return _end(command, str(error), error.exit_code)
    except ModuleNotFoundError as error:
        if (error.name or "scalepilot").partition(".")[0] in ("scalepilot", "scalepilot_envs"):
            return _end(command, streams.unexpected(error), 1)
        return _end(command, f"needs {error.name}, which is not installed: {_REMEDY}", 1)
    except KeyboardInterrupt:
        return _end(command, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (… | head): nothing left to say.
        streams.abandon()
        return 1
    except OSError as error:
        streams.abandon()
        return _end(command, *streams.system_error(error))
    except MemoryError:
        return _end(command, "there is not enough memory for this", 1)
    except Exception as error:  # noqa: BLE001 - a bug is one line, too; its traceback goes to a file
        return _end(command, streams.unexpected(error), 1)


def _check_text(given: Sequence[str]) -> None:
    """Refuse arguments that can be no file's name and in no file's text.

    Raises:
        InputError: NUL, or bytes that are not UTF-8.
    """
    for text in given:
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise InputError(f"{text[:_LONGEST]}: is not UTF-8; allowed: UTF-8")
        if "\0" in text:
            raise InputError(f"{text[:_LONGEST]}: holds NUL; allowed: text without")


def _end(command: str, message: str, code: int) -> int:
    """Say why in a line, whatever is still to be written."""
    with contextlib.suppress(OSError):
        streams.flush()
    said = printable(message)
    print(f"scalepilot {command}: " * bool(command) + (said if len(said) <= _LONGEST else said[:_LONGEST] + "…"), file=sys.stderr)
    return code


__all__ = ["COMMANDS", "build_parser", "main"]
