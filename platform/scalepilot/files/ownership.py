"""Whose a path is: what is executed, loaded or connected to must be out of every other user's reach.

A path is safe if every folder on the way to it, every link it goes through and what it ends at belong to this process's user
or to root, and nobody else may write there: then no other user can change, rename or replace any of it. A folder with the
sticky bit (`/tmp`) is a safe way to what belongs to this user or root, as only its owner can rename that.

Checked from the top: once a folder is found safe, what it holds can no longer be exchanged by others between check and use.

Two things count as writable by nobody else although their mode says otherwise:

- The group's write bit, where this user is not root, the group is this user's alone (most Linux systems make one for each
  user, with umask 002) and no access control list adds others to it.
- Whatever lies on a read-only mount, such as a Kubernetes secret or `docker run -v …:ro`: who mounted it answers for it.

Kubernetes leaves a pod's volumes to root, and an emptyDir open to all; the pod's own processes alone are in there. For what is
only data (records) such a volume is taken as it is, where the caller says so.
"""

from __future__ import annotations

import errno
import functools
import importlib.util
import os
import stat
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from scalepilot.errors import InputError

# As Linux counts; a loop of links has no end.
_MOST_LINKS = 40
# What imports a user's own environments.
ENV_MODULES = "SCALEPILOT_ENV_MODULES"
# Under a session's folder; what travels with jobs is there.
_UNPACKED, _OWN_CODE = "runtime_resources", __file__
# Set in every container of a pod.
_IN_A_POD = "KUBERNETES_SERVICE_HOST"
_ACL = "system.posix_acl_access"
_OTHERS_MAY_READ = stat.S_IROTH | stat.S_IWOTH | stat.S_IXOTH


def check_own(path: Path | str, what: str = "", *, user_id: int | None = None, volumes: bool = False) -> Path:
    """Refuse a path that another user could change, rename or replace.

    Args:
        path: of a file, folder or socket; links are followed, and checked like everything else on the way.
        what: it is, for the message: an option's or a key's name.
        user_id: whose it must be, if not root's; this process's if None.
        volumes: a volume of the pod that this process runs in is taken as it is; for data alone.

    Returns:
        The path without links, for use.

    Raises:
        InputError: it does not exist, or is not this user's alone.
    """
    try:
        return _check(Path(path), what, os.geteuid() if user_id is None else user_id, volumes)
    except OSError as error:
        raise InputError(f"{_begin(what, path)}: cannot be read ({error.strerror})") from None


def check_own_tree(folder: Path | str, what: str = "", *, user_id: int | None = None) -> Path:
    """Refuse a folder of which another user could change anything at any depth; see `check_own`.

    Args:
        folder: or a file.
        what: it is, for the message.
        user_id: whose it must be, if not root's; this process's if None.

    Returns:
        The path without links.

    Raises:
        InputError: it does not exist, or some of it is not this user's alone.
    """
    user = os.geteuid() if user_id is None else user_id
    try:
        top = _check(Path(folder), what, user)
        waiting, seen = [top], {top}
        while waiting:
            at = waiting.pop()
            if not at.is_dir():
                continue
            with os.scandir(at) as entries:
                names = [entry.name for entry in entries]
            for name in names:
                inner = at / name
                status = inner.lstat()
                # What a link leads to may lie anywhere; all else here has a safe way to it.
                if stat.S_ISLNK(status.st_mode):
                    inner = _check(inner, what, user)
                else:
                    _check_one(inner, status, what, user)
                if inner not in seen:
                    seen.add(inner)
                    waiting.append(inner)
    except OSError as error:
        raise InputError(f"{_begin(what, error.filename or folder)}: cannot be read ({error.strerror})") from None
    return top


def read_own(path: Path | str, what: str = "", *, most_bytes: int, secret: bool = False) -> bytes:
    """The content of a file that is this user's alone.

    Args:
        path: of it; links are followed, and checked.
        what: it is, for the message.
        most_bytes: allowed.
        secret: other users must not be able to read it; its group may (a Kubernetes secret's mode is 0440).

    Raises:
        InputError: missing, no regular file, too large, or within reach of others.
    """
    found = check_own(path, what)
    begin = _begin(what, path)
    try:
        # Not blocking: a pipe would wait for a writer for ever.
        descriptor = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            _check_one(found, status, what, os.geteuid())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{begin}: is not a regular file")
            if secret and status.st_mode & _OTHERS_MAY_READ:
                raise InputError(f"{begin}: is open to every user of this machine; allowed: chmod 600")
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise InputError(f"{begin}: cannot be read ({error.strerror})") from None
    if len(data) > most_bytes:
        raise InputError(f"{begin}: {max(status.st_size, len(data))} bytes; allowed: up to {most_bytes}")
    return data


def check_module(name: str, what: str) -> None:
    """Refuse a module that another user could change, before it is imported; one that is not found is left to the import.

    What is installed beside Python itself is as safe as that, and not looked at. Nor is what came here with a job: Ray, which
    opens its folders to everyone, has unpacked it beside this very code.

    Args:
        name: of the module or package.
        what: names it, for the message.

    Raises:
        InputError: it, or its folder, is within reach of others.
    """
    try:
        found = importlib.util.find_spec(name.partition(".")[0])
    except (ImportError, ValueError):
        return
    for place in [] if found is None else [found.origin, *(found.submodule_search_locations or [])]:
        if place and Path(place).exists() and not Path(place).is_relative_to(sys.prefix) and not _came_with_this_job(place):
            check_own(place, f"{what}: {name}")


def _came_with_this_job(place: str) -> bool:
    """Whether Ray has unpacked a path for the same job as our own code."""
    found = next((folder for folder in Path(os.path.realpath(_OWN_CODE)).parents if folder.name == _UNPACKED), None)
    return found is not None and Path(os.path.realpath(place)).is_relative_to(found)


def check_listed_modules(variable: str = ENV_MODULES) -> None:
    """Refuse modules that a variable of the environment lists; see `check_module`."""
    for module in filter(None, (part.strip() for part in os.environ.get(variable, "").split(","))):
        check_module(module, variable)


def private_folder(path: Path, *, volumes: bool = False) -> Path:
    """Make a folder that only this user can open, or check that one already there is safe and close it.

    Whatever the modes of what lies in it: nobody else comes there.

    Args:
        path: of it.
        volumes: as in `check_own`.

    Returns:
        The path without links.

    Raises:
        InputError: another user could change or replace it, or it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = check_own(path, volumes=volumes)
        status = found.stat()
        if status.st_mode & 0o077 and not (volumes and _is_volume(found, status)):
            found.chmod(0o700)
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror})") from None
    if not found.is_dir():
        raise InputError(f"{path}: is not a folder")
    return found


def _check(path: Path, what: str, user: int, volumes: bool = False) -> Path:
    """Check every step of the way and what is at its end."""
    folder: tuple[Path, os.stat_result] | None = None
    for step, status in _steps(path):
        if folder is not None and status is not folder[1] and not (volumes and _is_volume(*folder)):
            _check_way(*folder, status, what, user)
        if stat.S_ISLNK(status.st_mode):
            _check_owner(step, status, what, user)
            # What is wrong is found where it leads; what a person knows is its name.
            what = f"{_begin(what, step)} is a link"
        else:
            folder = step, status
    assert folder is not None
    if not (volumes and _is_volume(*folder)):
        _check_one(*folder, what, user)
    return folder[0]


def _steps(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every folder and link that the kernel passes on its way to a path, from the root, and what is there."""
    # Not `resolve` or `abspath`: what `..` means depends on the links before it.
    parts = deque((Path.cwd() / path).parts[1:])
    at, links = Path("/"), 0
    yield at, at.lstat()
    while parts:
        name = parts.popleft()
        if name == "..":
            at = at.parent
            yield at, at.lstat()
            continue
        status = (at / name).lstat()
        yield at / name, status
        if not stat.S_ISLNK(status.st_mode):
            at = at / name
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = (at / name).readlink()
        if target.is_absolute():
            at = Path("/")
            yield at, at.lstat()
        parts.extendleft(reversed([part for part in target.parts if part != "/"]))


def _check_way(folder: Path, status: os.stat_result, entry: os.stat_result, what: str, user: int) -> None:
    """A folder through which the way leads to an entry."""
    if status.st_mode & stat.S_ISVTX and entry.st_uid in (0, user):
        _check_owner(folder, status, what, user)
    else:
        _check_one(folder, status, what, user)


def _check_one(path: Path, status: os.stat_result, what: str, user: int) -> None:
    """A file or folder by itself."""
    _check_owner(path, status, what, user)
    if not stat.S_ISLNK(status.st_mode) and _others_may_write(path, status, user) and not _read_only(path):
        raise InputError(
            f"{_begin(what, path)}: others may write there (mode {stat.S_IMODE(status.st_mode):o}); allowed: chmod go-w"
        )


def _check_owner(path: Path, status: os.stat_result, what: str, user: int) -> None:
    if status.st_uid not in (0, user) and not _read_only(path):
        raise InputError(
            f"{_begin(what, path)}: belongs to user {status.st_uid}, you are user {user}; allowed: your own and root's"
        )


def _is_volume(path: Path, status: os.stat_result) -> bool:
    """Whether a folder is a volume of the pod that this process runs in."""
    return _IN_A_POD in os.environ and status.st_uid == 0 and os.path.ismount(path)


def _others_may_write(path: Path, status: os.stat_result, user: int) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not (_is_own_group(status.st_gid, user) and not _has_acl(path))


@functools.cache
def _is_own_group(group_id: int, user: int) -> bool:
    """Whether a group is called like the user, who is not root, and has no other member."""
    if user == 0:
        return False
    import grp
    import pwd

    try:
        name, group = pwd.getpwuid(user).pw_name, grp.getgrgid(group_id)
    except KeyError:
        return False
    others = {entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == group_id and entry.pw_uid != user}
    return group.gr_name == name and not (others | set(group.gr_mem)) - {name}


def _has_acl(path: Path) -> bool:
    """Whether an access control list names more users: the group's bits then show what these may do, too."""
    if not hasattr(os, "getxattr"):
        return True
    try:
        return bool(os.getxattr(path, _ACL, follow_symlinks=False))
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.ENOTSUP)


def _read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _begin(what: str, path: Path | str) -> str:
    return f"{what}: {path}" if what else str(path)
