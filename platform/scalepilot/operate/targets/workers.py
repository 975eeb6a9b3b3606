"""How the workers of a farm are started, listed and removed. One class a kind."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import TypeAdapter

from scalepilot.config import checked
from scalepilot.config.checks import Section
from scalepilot.errors import ConfigError, printable
from scalepilot.files.ownership import check_own
from scalepilot.operate.targets import Outcome, TargetError
from scalepilot.operate.targets.door import Answer, not_written
from scalepilot.operate.targets.gateway import Gateway, GatewaySettings, parsed

_COMMAND_SECONDS, _MOST_OUTPUT = 2.0, 1_000_000
_NAME_LIMIT = 200


class NotDoneError(TargetError):
    """Something was not done, or nobody knows.

    Args:
        message: one line.
        outcome: as of a write.
        answered: whether whoever was asked has said so.
    """

    def __init__(self, message: str, outcome: Outcome = "unknown", *, answered: bool = True) -> None:
        super().__init__(message)
        self.outcome, self.answered = outcome, answered


@dataclass(frozen=True)
class Worker:
    """One that was started and not removed.

    Attributes:
        name: of it.
        is_up: whether it could take tasks.
    """

    name: str
    is_up: bool


class Workers(Protocol):
    """Starts and removes workers; every call returns within a few seconds, or raises `NotDoneError`."""

    prefix: str
    # Whether a worker that is up has to be called before it begins.
    are_called: bool

    def all(self) -> list[Worker]:
        """Those there are."""
        ...

    def start(self, name: str, payload: Mapping[str, Any]) -> None:
        """Make one."""
        ...

    def call(self, name: str, payload: Mapping[str, Any]) -> None:
        """Let one that is up begin."""
        ...

    def remove(self, name: str) -> None:
        """Take away one that has gone; one that is not there is no error."""
        ...

    def close(self) -> None:
        """Let connections go."""
        ...


@dataclass(frozen=True)
class FunctionWorkersSettings(GatewaySettings):
    """Keys of `target.workers` with `kind: openfaas`: each worker is a function of its own, called once, without waiting.

    Attributes:
        image: of a worker.
        prefix: names of workers begin with it; every function of the namespace that does is one.
        deployment: more of what a function is deployed with, such as `labels`, `annotations`, `envVars`, `secrets`, `limits`.
        payload: more of what a worker is called with, beside the lists' names.
    """

    image: str = ""
    prefix: str = "worker-"
    deployment: Mapping[str, Any] = field(default_factory=dict)
    payload: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.image:
            raise ValueError("image: is missing; allowed: a worker's container image")
        if not self.prefix:
            raise ValueError("prefix: is empty; allowed: such as worker-")
        _check_json(self, "deployment", "payload")
        for key in ("service", "image", "namespace"):
            if key in self.deployment:
                raise ValueError(f"deployment.{key}: is not allowed; allowed: what its own keys do not say")


@dataclass(frozen=True)
class CommandWorkersSettings(Section):
    """Keys of `target.workers` with `kind: command`: three commands of your own.

    Attributes:
        start: starts a worker and returns at once; its name is added as the last argument, and the lists' names are in the
            variable WORKER_PAYLOAD, as JSON.
        all: prints the name of each worker there is, one a line.
        remove: takes away a worker that has gone; its name is added.
        prefix: names of workers begin with it.
        payload: more of what a worker is started with.
    """

    start: tuple[str, ...]
    all: tuple[str, ...]
    remove: tuple[str, ...]
    prefix: str = "worker-"
    payload: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_json(self, "payload")
        for key in ("start", "all", "remove"):
            command = getattr(self, key)
            if not command or not os.path.isabs(command[0]):  # noqa: PTH117 - a text of the configuration
                raise ValueError(f"{key}: {list(command)} is not allowed; allowed: an absolute path, then arguments")


def _check_json(settings: Section, *keys: str) -> None:
    for key in keys:
        try:
            json.dumps(getattr(settings, key), allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(f"{key}: holds what JSON has no form for, such as a date; allowed: texts, numbers, lists") from None


class FunctionWorkers:
    """Each worker a function, through the gateway.

    Args:
        settings: which.
    """

    are_called = True

    def __init__(self, settings: FunctionWorkersSettings) -> None:
        self._settings, self.prefix = settings, settings.prefix
        self._gateway = Gateway(settings, "target.workers")

    def all(self) -> list[Worker]:
        """Functions whose names begin with the prefix."""
        answer = self._gateway.ask("GET", "functions")
        # A gateway without functions answers null.
        if not answer.done or not isinstance(answer.body, list | None):
            raise NotDoneError(f"gateway: {answer.problem or 'answered no list of functions'}")
        found = [parsed(body) for body in answer.body or ()]
        if None in found:
            raise NotDoneError("gateway: answered something that is no function")
        return [Worker(f.name, (f.available or 0) > 0) for f in found if f is not None and f.name.startswith(self.prefix)]

    def start(self, name: str, payload: Mapping[str, Any]) -> None:
        """Deploy its function."""
        s = self._settings
        body = {**s.deployment, "service": name, "image": s.image, "namespace": s.namespace}
        self._done("deploy", name, self._gateway.ask("POST", "functions", body))

    def call(self, name: str, payload: Mapping[str, Any]) -> None:
        """Call it without waiting."""
        self._done("call", name, self._gateway.call(name, {**payload, **self._settings.payload}))

    def remove(self, name: str) -> None:
        """Remove its function."""
        answer = self._gateway.ask("DELETE", "functions", {"functionName": name, "namespace": self._settings.namespace})
        if answer.status != 404:
            self._done("remove", name, answer)

    def _done(self, what: str, name: str, answer: Answer) -> None:
        if not answer.done:
            raise NotDoneError(f"{what} {name}: {answer.problem}", not_written(answer).outcome, answered=answer.status > 0)

    def close(self) -> None:
        """Let the connection go."""
        self._gateway.close()


class CommandWorkers:
    """Workers by the user's own commands.

    Args:
        settings: which.

    Raises:
        InputError: another user could change a command.
    """

    are_called = False

    def __init__(self, settings: CommandWorkersSettings) -> None:
        self._settings, self.prefix = settings, settings.prefix
        for key in ("start", "all", "remove"):
            check_own(getattr(settings, key)[0], f"target.workers.{key}")

    def all(self) -> list[Worker]:
        """What the command prints."""
        names = [line.strip() for line in self._run(self._settings.all).splitlines()]
        if any(len(name) > _NAME_LIMIT or not name.isprintable() for name in names):
            raise NotDoneError(f"{self._settings.all[0]}: printed something that is no name")
        return [Worker(name, True) for name in names if name.startswith(self.prefix)]

    def start(self, name: str, payload: Mapping[str, Any]) -> None:
        """Run `start`."""
        self._run((*self._settings.start, name), {**payload, **self._settings.payload})

    def call(self, name: str, payload: Mapping[str, Any]) -> None:
        """It begins by itself."""

    def remove(self, name: str) -> None:
        """Run `remove`."""
        self._run((*self._settings.remove, name))

    def _run(self, command: tuple[str, ...], payload: Mapping[str, Any] | None = None) -> str:
        environ = dict(os.environ) if payload is None else {**os.environ, "WORKER_PAYLOAD": json.dumps(payload)}
        # Files and no pipes: what `start` leaves running would hold a pipe open.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                code = subprocess.run(  # noqa: S603 - the user's own, which nobody else can change
                    command, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=_COMMAND_SECONDS, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                raise NotDoneError(f"{command[0]}: did not end within {_COMMAND_SECONDS:g} s", answered=False) from None
            except OSError as error:
                raise NotDoneError(f"{command[0]}: {error.strerror}", "forbidden") from None
            if code:
                err.seek(max(0, err.seek(0, os.SEEK_END) - 200))
                said = printable(err.read(200).decode("utf-8", errors="replace").strip())
                raise NotDoneError(f"{' '.join(command)}: exit {code}{f': {said}' if said else ''}")
            out.seek(0)
            return out.read(_MOST_OUTPUT).decode("utf-8", errors="replace")

    def close(self) -> None:
        """Nothing to let go."""


_FUNCTIONS: TypeAdapter[FunctionWorkersSettings] = TypeAdapter(FunctionWorkersSettings)
_COMMANDS: TypeAdapter[CommandWorkersSettings] = TypeAdapter(CommandWorkersSettings)


def make_workers(settings: Mapping[str, Any]) -> Workers:
    """The workers a configuration names.

    Raises:
        ConfigError: an unknown kind, or a key or value that it does not take.
        InputError: a secret cannot be read, or another user could change a command.
    """
    values = {key: value for key, value in settings.items() if key != "kind"}
    match settings.get("kind"):
        case "openfaas":
            return FunctionWorkers(checked(FunctionWorkersSettings, _FUNCTIONS, values, "target.workers"))
        case "command":
            return CommandWorkers(checked(CommandWorkersSettings, _COMMANDS, values, "target.workers"))
        case kind:
            raise ConfigError(f"target.workers.kind: {kind!r} is not allowed; allowed: openfaas, command")


__all__ = ["CommandWorkersSettings", "FunctionWorkersSettings", "NotDoneError", "Worker", "Workers", "make_workers"]
