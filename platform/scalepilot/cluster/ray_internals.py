"""A Ray cluster that no other user of this machine reaches: what is changed in Ray for that, with every private name it takes.

Ray is made for clusters of many machines and users. It opens its temporary folder to everyone (`chmod 777`), listens on every
interface, and writes its token for everyone to read. A cluster that one command starts for itself needs none of this.

No other module takes a private name of Ray, but for what subclasses of RLlib's classes inherit: `test_ray_internals.py` lists
those and holds this.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from scalepilot.errors import InputError
from scalepilot.files.ownership import check_own, private_folder

_TOKEN, _TOKEN_PATH, _MODE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"
_FOLDER = "RAY_TMPDIR"


def ray_folder(default: Path | None = None) -> Path:
    """Where the files of a Ray of our own go: in a folder that only this user can open, as Ray opens its own to everyone.

    Args:
        default: a private folder to put it into, where RAY_TMPDIR names none. Its path must be short: a Unix socket's ends at
            107 characters, of which Ray appends about 65.

    Returns:
        For Ray's `_temp_dir`.

    Raises:
        InputError: another user could change it.
    """
    try:
        # Its owner is checked: who makes it first does not get our files.
        return private_folder(ray_home() if default is None or _FOLDER in os.environ else default) / "r"
    except InputError as error:
        raise InputError(f"{_FOLDER}: {error}") from None


def ray_home() -> Path:
    """The private folder of this user's own clusters."""
    return Path(os.environ.get(_FOLDER) or "/tmp") / f"sp-{os.geteuid()}"  # noqa: S108


def cluster_address(address: str) -> str:
    """The address that is connected to for one that was given.

    For "auto" Ray itself takes any user's: it looks for processes called raylet, and into a folder that everyone may write to.

    Args:
        address: HOST:PORT, ray://HOST:PORT, or "auto" for the cluster that `ray start` of this user or root began here.

    Raises:
        InputError: "auto", and there is none, or another user said so.
    """
    if address != "auto":
        return address
    given = os.environ.get("RAY_ADDRESS", "auto")
    if given != "auto":
        return given
    file = Path(os.environ.get(_FOLDER) or "/tmp/ray") / "ray_current_cluster"  # noqa: S108 - Ray's own
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor) as opened:
            status = os.fstat(descriptor)
            # Not the folders above: they are Ray's, open to everyone. Whose the file is, nobody else can forge.
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022 or not stat.S_ISREG(status.st_mode):
                raise InputError(f"address: 'auto': {file} is another user's, or open to others; allowed: HOST:PORT")
            return opened.read(200).strip()
    except OSError as error:
        raise InputError(f"address: 'auto': {file} cannot be read ({error.strerror}); allowed: HOST:PORT") from None


@contextlib.contextmanager
def on_loopback() -> Iterator[None]:
    """Within the block `ray.init` starts processes that listen on loopback alone, as Ray itself does on macOS."""
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def without_helpers() -> Iterator[None]:
    """Within the block `ray.init` starts a node without three processes that take longer to start than all the others.

    In a cluster that one command starts for itself the autoscaler's monitor has no node to add, the log monitor no driver to
    print to, and without a dashboard nobody asks the API server.
    """
    from ray._private.node import Node

    names = ("start_monitor", "start_log_monitor", "start_api_server")
    before = {name: getattr(Node, name) for name in names}
    for name in names:
        setattr(Node, name, lambda _node, **_options: None)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Node, name, method)


def close_replica_port() -> None:
    """Have the replica of this process open no port for requests from Serve's own handles; before it is initialised.

    Ray 2.60 opens one on every interface, asks for no token there and unpickles what it is sent: whoever reaches it runs code. It
    is needed only where RAY_SERVE_USE_GRPC_BY_DEFAULT is on.
    """
    from ray.serve._private import constants, replica

    if not constants.RAY_SERVE_USE_GRPC_BY_DEFAULT:
        replica.add_port_to_grpc_server = lambda _server, _address: 0


def session_folder() -> Path:
    """The folder of the running Ray's session on this node; Ray must be up."""
    import ray

    # Ray has no public word for it.
    return Path(ray._private.worker.global_worker.node.get_session_dir_path())


def make_token() -> None:
    """Have a cluster that is started next use a token of its own; one that is set in the environment stays.

    Ray would write one to `~/.ray/auth_token`, readable for everyone, and use it for every cluster of this user.
    """
    if os.environ.get(_MODE, "token").lower() == "token" and not {_TOKEN, _TOKEN_PATH} & set(os.environ):
        os.environ[_TOKEN] = secrets.token_hex(32)
    check_token()


def use_token() -> None:
    """Have requests to a cluster carry this user's token where there is one and RAY_AUTH_MODE says nothing.

    Ray's own clients of a dashboard send none until that variable is set, although the cluster that the same user started here
    asks for the one that Ray keeps in `~/.ray/auth_token`.

    Raises:
        InputError: see `check_token`.
    """
    check_token()
    has_token = bool({_TOKEN, _TOKEN_PATH} & set(os.environ)) or _default_token().is_file()
    if _MODE in os.environ or not has_token:
        return
    os.environ[_MODE] = "token"
    if "ray._raylet" in sys.modules:
        # Ray has read its variables when it was imported.
        sys.modules["ray._raylet"].Config.initialize("")


def _default_token() -> Path:
    return Path.home() / ".ray" / "auth_token"


def check_token() -> None:
    """Look after the file whose token Ray is about to use: others must neither have written it nor read it.

    A file of this user's that others may read is closed to them, and said: Ray itself makes it so.

    Raises:
        InputError: another user could change it, or everyone may read it and it is not this user's to close.
    """
    if os.environ.get(_MODE, "token").lower() != "token" or os.environ.get(_TOKEN):
        return
    given = os.environ.get(_TOKEN_PATH)
    path = Path(given) if given else _default_token()
    if not given and not path.exists():
        return
    what = _TOKEN_PATH if given else "Ray's token"
    found = check_own(path, what)
    try:
        descriptor = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            mode = stat.S_IMODE(status.st_mode)
            if status.st_uid == os.geteuid() and mode & 0o077 and not _read_only(descriptor):
                os.fchmod(descriptor, 0o600)
                print(
                    f"{what}: {path}: was open to other users (mode {mode:o}), is now 600; if any of them is not trusted,"
                    " replace it: ray get-auth-token --generate",
                    file=sys.stderr,
                )
            elif mode & 0o007 and not _read_only(descriptor):
                raise InputError(f"{what}: {path}: is readable by every user of this machine (mode {mode:o}); allowed: chmod 600")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"{what}: {path}: cannot be read ({error.strerror})") from None


def _read_only(descriptor: int) -> bool:
    return bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)
