"""What another user could change is refused, whichever part of the way there he could change."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.second_user import OTHER, THIRD, as_user, needs_root, open_folder

from scalepilot.errors import InputError
from scalepilot.files.ownership import _is_own_group, check_own, check_own_tree, private_folder, read_own


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file two folders down, all of it this user's."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "file").write_text("content")
    return folder / "file"


def refused(path: Path, words: str, check: Callable[..., object] = check_own) -> None:
    with pytest.raises(InputError) as caught:
        check(path, "what")
    said = str(caught.value)
    assert said.startswith("what: /"), said
    assert words in said
    assert "\n" not in said


def test_ones_own_file_is_read_and_named_without_links(file: Path) -> None:
    link = file.parent / "link"
    link.symlink_to("../b/file")
    assert check_own(link) == file
    assert check_own(file.parent / ".." / "b" / "file") == file
    assert read_own(link, most_bytes=7) == b"content"


def test_what_others_may_write_is_refused_at_any_height(file: Path) -> None:
    for path, mode in ((file, 0o666), (file.parent, 0o777), (file.parent.parent, 0o757)):
        before = path.stat().st_mode
        path.chmod(mode)
        refused(file, f"{path}: others may write there (mode {mode:o}); allowed: chmod go-w")
        path.chmod(before)
        check_own(file)


def test_a_group_may_write_only_if_it_is_the_users_own(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.chmod(0o664)
    monkeypatch.setattr("scalepilot.files.ownership._is_own_group", lambda group, user: False)
    refused(file, "(mode 664)")
    monkeypatch.setattr("scalepilot.files.ownership._is_own_group", lambda group, user: True)
    check_own(file)
    monkeypatch.setattr("scalepilot.files.ownership._has_acl", lambda path: True)
    refused(file, "(mode 664)")


def test_roots_group_is_nobodys_own() -> None:
    assert not _is_own_group(0, 0)


def test_a_link_is_followed_to_what_it_leads_to(file: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "there").write_text("")
    outside.chmod(0o777)
    link = file.parent / "link"
    link.symlink_to(outside / "there")
    refused(link, f"{outside}: others may write there")
    refused(file.parent, f"{outside}: others may write there", check_own_tree)
    (file.parent / "round").symlink_to("round")
    refused(file.parent / "round", "cannot be read (Too many levels")


def test_a_sticky_folder_is_a_way_to_ones_own_but_no_place_to_load_from(file: Path) -> None:
    file.parent.chmod(0o1777)
    check_own(file)
    refused(file.parent, "others may write there (mode 1777)")
    refused(file.parent, "others may write there (mode 1777)", check_own_tree)


def test_a_tree_is_checked_down_to_each_file(file: Path, tmp_path: Path) -> None:
    top = tmp_path / "a"
    assert check_own_tree(top) == top
    file.chmod(0o646)
    check_own(top)
    refused(top, f"{file}: others may write there (mode 646)", check_own_tree)


def test_what_is_not_there_is_too_large_or_no_file_is_one_line(file: Path) -> None:
    refused(file / "x", "cannot be read (Not a directory)")
    refused(file.parent / "x", "cannot be read (No such file or directory)")
    with pytest.raises(InputError, match=r"file: 7 bytes; allowed: up to 6$"):
        read_own(file, most_bytes=6)
    os.mkfifo(file.parent / "pipe")
    with pytest.raises(InputError, match="pipe: is not a regular file"):
        read_own(file.parent / "pipe", most_bytes=6)


def test_a_secret_is_for_its_owner_and_group_alone(file: Path) -> None:
    file.chmod(0o640)
    assert read_own(file, most_bytes=7, secret=True) == b"content"
    file.chmod(0o644)
    with pytest.raises(InputError, match="is open to every user of this machine; allowed: chmod 600"):
        read_own(file, most_bytes=7, secret=True)


def test_a_private_folder_is_made_or_checked(tmp_path: Path) -> None:
    made = private_folder(tmp_path / "private")
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o755)
    assert private_folder(made).stat().st_mode & 0o777 == 0o700
    made.chmod(0o777)
    with pytest.raises(InputError, match="others may write there"):
        private_folder(made)


@needs_root
def test_another_users_files_folders_and_links_are_refused_and_roots_are_not(file: Path, tmp_path: Path) -> None:
    for path in (file, file.parent):
        os.chown(path, OTHER, -1)
        refused(file, f"{path}: belongs to user {OTHER}, you are user 0; allowed: your own and root's")
        check_own(file, user_id=OTHER)
        os.chown(path, 0, -1)
    link = tmp_path / "link"
    link.symlink_to(file)
    os.chown(link, OTHER, -1, follow_symlinks=False)
    refused(link, f"{link}: belongs to user {OTHER}")


@needs_root
def test_a_sticky_folder_of_another_user_is_no_safe_way(file: Path) -> None:
    file.parent.chmod(0o1777)
    os.chown(file.parent, OTHER, -1)
    refused(file, f"{file.parent}: belongs to user {OTHER}")


@needs_root
def test_a_process_of_another_user_reads_roots_and_its_own_and_refuses_a_thirds() -> None:
    with open_folder() as folder:
        for name, owner in (("roots", 0), ("own", OTHER), ("thirds", THIRD)):
            (folder / name).write_text(name)
            os.chown(folder / name, owner, -1)
        said = [
            as_user(OTHER, lambda name=name: read_own(folder / name, most_bytes=9).decode())
            for name in ("roots", "own", "thirds")
        ]
        refusal = f"{folder / 'thirds'}: belongs to user {THIRD}, you are user {OTHER}; allowed: your own and root's"
        assert said == ["roots", "own", refusal]


@needs_root
def test_a_pods_volume_takes_data_and_nothing_that_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    # As Kubernetes mounts an emptyDir.
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "mode=2777", "none", str(volume)], capture_output=True, check=False
    ).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        refused(volume, "others may write there (mode 2777)", lambda path, what: check_own(path, what, volumes=True))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        assert private_folder(volume, volumes=True) == volume
        (volume / "2026-11-30.jsonl").write_text("{}")
        assert check_own(volume / "2026-11-30.jsonl", volumes=True).name == "2026-11-30.jsonl"
        refused(volume, "others may write there (mode 2777)")
        refused(volume / "2026-11-30.jsonl", "others may write there (mode 2777)")
        # A folder in it that is open to all is none.
        (volume / "open").mkdir()
        (volume / "open").chmod(0o777)
        refused(volume / "open", "others may write there (mode 777)", lambda path, what: check_own(path, what, volumes=True))
    finally:
        subprocess.run(["umount", str(volume)], check=True)
