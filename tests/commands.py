"""What a command says, for tests that type one."""

from __future__ import annotations

import pytest

from scalepilot.cli import main


def said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """What a command prints, on standard output where it succeeds and on standard error where it does not."""
    assert main([str(a) for a in arguments]) == code
    out, err = capsys.readouterr()
    if code:
        assert out == ""
        assert err.count("\n") == 1
        return err
    return out


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a command which is refused, also by the parser, says on standard error; it ends with 2."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), (arguments, code, out, err)
    assert err.count("\n") == 1, (arguments, err)
    return err
