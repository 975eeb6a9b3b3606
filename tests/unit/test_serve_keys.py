"""API keys: who is let in, and a file that changes while the server runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.commands import said

from scalepilot.errors import InputError
from scalepilot.serve import RequestError
from scalepilot.serve.http.keys import ApiKeys

FIRST, SECOND = "first-key-0123456789", "second-key-0123456789"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    write(path, f"# of the cluster\n{FIRST}\n\n{SECOND}\n")
    return path


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def passes(keys: ApiKeys, *headers: tuple[bytes, bytes]) -> bool:
    try:
        keys.check(list(headers))
    except RequestError as error:
        refusal = error
    else:
        return True
    assert refusal.status == 401
    assert dict(refusal.headers)["www-authenticate"].startswith("Bearer")
    assert FIRST not in str(refusal)
    return False


@pytest.mark.parametrize("key", [FIRST, SECOND])
def test_every_key_of_the_file_opens_in_either_header(file: Path, key: str) -> None:
    keys = ApiKeys(file)
    assert len(keys) == 2
    assert passes(keys, (b"x-api-key", key.encode()))
    assert passes(keys, (b"authorization", b"Bearer " + key.encode()))
    assert passes(keys, (b"authorization", b"bearer  " + key.encode()))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-api-key", b"")],
        [(b"x-api-key", b"wrong-key-0123456789")],
        [(b"x-api-key", FIRST[:-1].encode())],
        [(b"x-api-key", FIRST.upper().encode())],
        [(b"x-api-key", b"\xff\x00")],
        [(b"authorization", FIRST.encode())],
        [(b"authorization", b"Basic " + FIRST.encode())],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer # of the cluster")],
        [(b"x-api-key", FIRST.encode()), (b"x-api-key", FIRST.encode())],
        [(b"x-api-key", FIRST.encode()), (b"authorization", b"Bearer " + FIRST.encode())],
    ],
)
def test_no_wrong_and_malformed_credentials_are_refused(file: Path, headers: list[tuple[bytes, bytes]]) -> None:
    assert not passes(ApiKeys(file), *headers)


def test_a_changed_file_is_read_again_and_an_unfit_one_changes_nothing(file: Path) -> None:
    keys = ApiKeys(file, look_seconds=0.0)
    third = "third-key-0123456789"
    write(file, third)
    assert passes(keys, (b"x-api-key", third.encode()))
    assert not passes(keys, (b"x-api-key", FIRST.encode()))
    write(file, "short")
    assert passes(keys, (b"x-api-key", third.encode()))
    file.unlink()
    assert passes(keys, (b"x-api-key", third.encode()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        ("short\n", ":1: a key of 5 characters"),
        (f"{FIRST}\ntwo words of a sentence\n", ":2: a key"),
        ("k" * 600, "600 characters"),
    ],
)
def test_an_unfit_file_is_refused_before_anything_starts(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path / "keys", text)
    with pytest.raises(InputError, match=words):
        ApiKeys(tmp_path / "keys")


def test_a_file_that_others_may_read_and_one_that_is_missing_are_refused(file: Path, tmp_path: Path) -> None:
    file.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        ApiKeys(file)
    with pytest.raises(InputError, match="cannot be read"):
        ApiKeys(tmp_path / "none")
    file.chmod(0o600)
    file.write_bytes("schlüssel-0123456789".encode())
    with pytest.raises(InputError, match="not ASCII"):
        ApiKeys(file)


def test_a_group_may_read_it_as_kubernetes_mounts_a_secret(file: Path) -> None:
    file.chmod(0o640)
    assert len(ApiKeys(file)) == 2
    assert os.access(file, os.R_OK)


def test_status_refuses_a_key_file_as_the_server_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be read" in said(capsys, "serve", "status", "--api-key-file", tmp_path / "none", code=2)
