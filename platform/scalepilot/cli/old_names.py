"""Spellings of the release before: accepted for one release, with a line that names the new one."""

from __future__ import annotations

from collections.abc import Sequence

from scalepilot.cli.streams import note

# Command → what it is called now.
COMMANDS = {"plot": ("report", "--plots"), "crosscheck": ("study",), "evaluate": ("compare",)}
# Command → option → what it is called now.
OPTIONS = {
    "train": {"--trace": "--workload"},
    "study": {"--reuse": "--resume"},
    "tune": {"--concurrency": "--jobs"},
    "submit": {"--output": "--out"},
    "demo": {"--pattern": "--workload"},
    "compare": {"--reuse": "--resume"},
}


def renamed(given: Sequence[str]) -> list[str]:
    """A command line in today's spelling.

    Args:
        given: arguments, the command first.
    """
    if not given:
        return []
    command, *rest = given
    words = COMMANDS.get(command, (command,))
    if command in COMMANDS:
        note(command, f"is called scalepilot {' '.join(words)} now; this spelling goes with the next release")
    if command == "crosscheck":
        rest = _resumed(rest)
    if command == "evaluate":
        rest = _compared(rest)
    options = OPTIONS.get(words[0], {})
    out = []
    for text in rest:
        option, equals, value = text.partition("=")
        new = options.get(option)
        if new:
            note(words[0], f"{option} is called {new} now; this spelling goes with the next release")
        out.append(f"{new}{equals}{value}" if new else text)
    return [*words, *out]


def _resumed(rest: Sequence[str]) -> list[str]:
    """`--resume FOLDER` of a cross-check, as a study has it."""
    out: list[str] = []
    for text in rest:
        option, equals, value = text.partition("=")
        out += ["--resume", "--out", *([value] if equals else [])] if option == "--resume" else [text]
    return out


def _compared(rest: Sequence[str]) -> list[str]:
    """What `evaluate` was given: traces as workloads, one flag each; the rules as baselines; the only protocol is the default."""
    out: list[str] = []
    flag = ""
    for text in rest:
        option, equals, value = text.partition("=")
        if option.startswith("-"):
            flag = option
        if flag not in ("--trace", "--protocol", "--rules"):
            out.append(text)
        elif value or not option.startswith("-"):
            given = value if equals else text
            out += ["--workload", given] if flag == "--trace" else ["--baseline", "all"] if given == "all" else []
            # Of these two there is one value each.
            flag = flag if flag == "--trace" else ""
    return out
