"""Where a Redis is and who asks it: a few commands in one go, answered within a time or not at all."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scalepilot.config.checks import Section
from scalepilot.errors import InputError, RunError, printable
from scalepilot.operate.credentials import secret_line, trusted
from scalepilot.operate.telemetry.asking import Asking, Problem

if TYPE_CHECKING:
    import redis

# Of one step: connecting, or a part of an answer; and of all of them.
_SECONDS, _ANSWER_SECONDS = 0.8, 1.7
_LONGEST_TOLD = 240

Command = tuple[str | bytes | int | float, ...]


class RedisError(RunError):
    """No answer, or none that can be used; `str()` is one line.

    Args:
        message: that line.
        is_forbidden: a right is missing, or this server takes no writes: nothing was done.
    """

    def __init__(self, message: str, *, is_forbidden: bool = False) -> None:
        super().__init__(message)
        self.is_forbidden = is_forbidden


@dataclass(frozen=True)
class RedisSettings(Section):
    """Where a Redis is.

    Attributes:
        url: redis://HOST:PORT/DATABASE, or rediss:// with TLS.
        user: of Redis's access control lists, with `password_file`; null for the default user.
        password_file: file with the password; it is read again with every new connection.
        ca_file: certificates that its own is checked against; null for those of the system.
    """

    url: str = "redis://127.0.0.1:6379/0"
    user: str | None = None
    password_file: str | None = None
    ca_file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            parts, known = urlsplit(""), False
        if parts.username is not None or parts.password is not None:
            raise ValueError("url: holds a user or a password; allowed: user and password_file beside it")
        path = parts.path.strip("/")
        if not known or parts.query or parts.fragment or (path and not (path.isascii() and path.isdigit())):
            raise ValueError(f"url: {printable(self.url)!r} is not allowed; allowed: redis://HOST:PORT/DATABASE or rediss://…")
        if self.user is not None and self.password_file is None:
            raise ValueError("user: is not used without password_file; allowed: both or neither")
        if self.ca_file is not None and parts.scheme != "rediss":
            raise ValueError(f"ca_file: is not used by {self.url}; allowed: with rediss://")


class RedisDoor:
    """Asks one Redis; may be used by several threads. Nothing is asked twice.

    Args:
        settings: which.
        where: they stand in the configuration, for messages.

    Raises:
        InputError: a secret or the CA file cannot be read, or is within reach of others; the client library is not installed.
    """

    def __init__(self, settings: RedisSettings, where: str) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.credentials import CredentialProvider
            from redis.retry import Retry
        except ImportError:
            raise InputError("Redis: needs redis; allowed: pip install 'scalepilot[operate]'") from None

        class Credentials(CredentialProvider):
            """Of the file, as it is when a connection is made."""

            def get_credentials(self) -> tuple[str] | tuple[str, str]:
                assert settings.password_file is not None
                try:
                    password = secret_line(settings.password_file, f"{where}.password_file")
                except InputError as error:
                    # Its client would go on unauthenticated after any other.
                    raise redis.AuthenticationError(str(error)) from None
                return (password,) if settings.user is None else (settings.user, password)

        parts, options = urlsplit(settings.url), dict[str, Any]()
        if settings.password_file is not None:
            secret_line(settings.password_file, f"{where}.password_file")
            options["credential_provider"] = Credentials()
        if parts.scheme == "rediss":
            options |= {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
        if settings.ca_file is not None:
            options["ssl_ca_data"] = trusted(settings.ca_file, f"{where}.ca_file")
        self._redis: redis.Redis = redis.Redis(
            host=parts.hostname or "",
            port=parts.port or 6379,
            db=int(parts.path.strip("/") or 0),
            protocol=2,
            # Who asks twice may have done twice what it asks for.
            retry=Retry(NoBackoff(), 0),
            socket_timeout=_SECONDS,
            socket_connect_timeout=_SECONDS,
            # Another question and answer with each connection.
            driver_info=None,
            **options,
        )
        self._asking = Asking()
        self._url, self._errors = settings.url, (redis.RedisError, OSError, UnicodeError)
        self._refused: type[Exception] = redis.ResponseError
        self._forbidden = (
            redis.AuthenticationError,
            redis.exceptions.AuthorizationError,
            redis.exceptions.NoPermissionError,
            redis.ReadOnlyError,
        )

    @property
    def url(self) -> str:
        """Where it is."""
        return self._url

    def ask(self, *commands: Command) -> list[Any]:
        """What it answers to each command, all carried out at once or none (MULTI).

        Raises:
            RedisError: no answer, which does not say that nothing was done; or a command was refused.
        """
        answers = self.try_all(commands)
        for answer in answers:
            if isinstance(answer, self._refused):
                raise self._error(answer)
        return answers

    def try_all(self, commands: Sequence[Command]) -> list[Any]:
        """As `ask`, with the error in place of an answer that was refused.

        Raises:
            RedisError: no answer.
        """

        def asked(seconds: float) -> list[Any] | RedisError:
            deadline, pool = time.monotonic() + seconds, self._redis.connection_pool
            try:
                # A name that resolves at last must not send a decision of long ago.
                pool.release(pool.get_connection())
                if time.monotonic() >= deadline:
                    return RedisError(f"redis {self._url}: the time was up before anything was sent")
                with self._redis.pipeline(transaction=True) as pipeline:
                    for command in commands:
                        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                    return list(pipeline.execute(raise_on_error=False))
            except self._errors as error:
                return self._error(error)

        # Each thread asks one question at a time.
        (found,) = self._asking.ask({str(threading.get_ident()): asked}, _ANSWER_SECONDS).values()
        if isinstance(found, Problem):
            # Whoever sends a little now and then would keep the connection, and us, for ever.
            self._redis.connection_pool.disconnect()
            self._asking = Asking()
            found = RedisError(printable(f"redis {self._url}: {found.reason}"[:_LONGEST_TOLD]))
        if isinstance(found, RedisError):
            raise found
        answers: list[Any] = found
        return answers

    def _error(self, error: Exception) -> RedisError:
        # The client puts the whole command before it.
        said = " ".join(str(error).rpartition(" of pipeline caused error: ")[2].split()) or type(error).__name__
        told = printable(f"redis {self._url}: {said}"[:_LONGEST_TOLD])
        return RedisError(told, is_forbidden=isinstance(error, self._forbidden))

    def close(self) -> None:
        """Let connections go."""
        self._asking.close()
        with contextlib.suppress(*self._errors):
            self._redis.close()
