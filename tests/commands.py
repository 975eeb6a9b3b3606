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
