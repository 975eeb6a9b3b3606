"""Spellings of the release before: each still works, with one line on standard error that names the new one."""

from __future__ import annotations

import pytest

from scalepilot.cli import COMMANDS, build_parser
from scalepilot.cli.old_names import COMMANDS as OLD_COMMANDS
from scalepilot.cli.old_names import OPTIONS, renamed

EXAMPLES = {
    "plot run --field a b": "report --plots run --field a b",
    "crosscheck a.yaml --seeds 0 1": "study a.yaml --seeds 0 1",
    "crosscheck a.yaml --resume folder": "study a.yaml --resume --out folder",
    "train a.yaml --trace week.csv": "train a.yaml --workload week.csv",
    "train a.yaml --trace=week.csv": "train a.yaml --workload=week.csv",
    "study s.yaml --reuse": "study s.yaml --resume",
    "tune s.yaml --concurrency 2": "tune s.yaml --jobs 2",
    "submit a.yaml --output there": "submit a.yaml --out there",
    "demo p --pattern spike": "demo p --workload spike",
    "compare p --out f --reuse": "compare p --out f --resume",
    "evaluate p --protocol v1 --trace a.csv b.csv --rules all": "compare p --workload a.csv --workload b.csv --baseline all",
    "evaluate --rules=hpa p --trace=a.csv": "compare p --workload a.csv",
}


@pytest.mark.parametrize(("old", "new"), EXAMPLES.items())
def test_an_old_spelling_is_accepted_with_one_line_that_names_the_new_one(
    old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert renamed(old.split()) == new.split()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "is called" in err
    build_parser(new.split()[0]).parse_args(new.split())


def test_every_old_spelling_has_an_example() -> None:
    options = {(command, option) for command, of in OPTIONS.items() for option in of}
    shown = {(old.split()[0], option.partition("=")[0]) for old in EXAMPLES for option in old.split() if option.startswith("--")}
    assert options <= shown
    assert {*OLD_COMMANDS} <= {old.split()[0] for old in EXAMPLES}


def test_todays_spelling_says_nothing_and_names_are_only_commands_where_they_stand_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for line in ("report plot --plots", "train a.yaml --workload --trace-like", "runs crosscheck", ""):
        assert renamed(line.split()) == line.split()
    assert capsys.readouterr() == ("", "")


def test_help_fits_a_screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for arguments in ((), *((name,) for name in COMMANDS)):
        with pytest.raises(SystemExit):
            build_parser("".join(arguments)).parse_args([*arguments, "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 44, (arguments, len(lines))
        assert max(map(len, lines)) <= 100, arguments
