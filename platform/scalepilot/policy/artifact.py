"""The policy folder: written aside and renamed into place, checked in full when loaded. No pickle, ever."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from scalepilot.durable import replaced_folder
from scalepilot.errors import ArtifactError
from scalepilot.policy.fields import check_same_fields
from scalepilot.policy.network import MODEL_FILE, NetworkPolicy
from scalepilot.policy.onnx_metadata import model_metadata, with_metadata
from scalepilot.policy.protocol import Policy
from scalepilot.policy.rules import Rule, make_rule
from scalepilot.policy.spec import PolicySpec, env_of, unmasked
from scalepilot.policy.table import TABLE_FILE, TablePolicy
from scalepilot_envs.description import EnvDescription
from scalepilot_envs.flat_env import wrapper_names
from scalepilot_envs.registration import MODULES_VARIABLE, import_modules, split_id

SPEC_FILE = "policy.json"
_MAX_SPEC_BYTES = 1_000_000
_MAX_MODEL_BYTES = 500_000_000
_SPEC: TypeAdapter[PolicySpec] = TypeAdapter(PolicySpec)


@dataclass(frozen=True)
class PackedPolicy:
    """A policy as plain data, for another process or machine.

    Attributes:
        spec: its description, with the hashes of its files.
        files: name → content of everything beside `policy.json`.
    """

    spec: PolicySpec
    files: Mapping[str, bytes]

    def unpack(self, where: str | None = None) -> Policy:
        """The policy.

        Args:
            where: what an error message begins with; the policy's name if None.

        Raises:
            ArtifactError: the files or the environment do not fit the description.
        """
        spec, files = self.spec, self.files
        where = where or spec.name
        env = describe_env(spec, where)
        if spec.kind == "network":
            if set(files) != {MODEL_FILE}:
                raise ArtifactError(f"{where}: a network needs {MODEL_FILE} alone, it lists {sorted(files)}")
            return NetworkPolicy(spec, files[MODEL_FILE])
        if spec.kind == "table":
            if set(files) != {TABLE_FILE}:
                raise ArtifactError(f"{where}: a table needs {TABLE_FILE} alone, it lists {sorted(files)}")
            return TablePolicy.from_bytes(spec, files[TABLE_FILE])
        if spec.kind == "rule" and spec.rule and not files:
            naming = {"name": spec.name, "version": spec.version, "provenance": spec.provenance}
            rule = make_rule(str(spec.rule.get("name")), env, spec.rule.get("parameters"), **naming)
            # One of before there were masks saw an environment's fields without them.
            shown = rule.spec.observation_fields
            check_same_fields(where, spec.observation_fields, shown if spec.num_masked else unmasked(shown))
            # Which revision of the rule it was made with stays readable, though today's decides.
            rule.spec = replace(rule.spec, rule=spec.rule)
            rule.spec = rule.spec.with_evaluation(spec.evaluation)
            return rule
        raise ArtifactError(f"{where}: kind {spec.kind!r} with files {sorted(files)} cannot be loaded")

    def with_named_model(self) -> PackedPolicy:
        """The same, its network's file saying the name, version and fields of this description."""
        if MODEL_FILE not in self.files:
            return self
        model = with_metadata(self.files[MODEL_FILE], model_metadata(self.spec))
        files = {**self.files, MODEL_FILE: model}
        return PackedPolicy(replace(self.spec, files={**self.spec.files, MODEL_FILE: hashlib.sha256(model).hexdigest()}), files)

    def save(self, folder: Path) -> PolicySpec:
        """Write the artifact; one already there is replaced in one step."""
        files = dict(self.files)
        files[SPEC_FILE] = (json.dumps(asdict(self.spec), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
        with replaced_folder(folder) as aside:
            for name, data in files.items():
                (aside / name).write_bytes(data)
        return self.spec


def save_policy(policy: Policy, folder: Path) -> PolicySpec:
    """Write a policy's artifact.

    Args:
        policy: a network, a table or a rule.
        folder: where; an artifact already there is replaced in one step.

    Returns:
        The description as written, with the hashes.

    Raises:
        ArtifactError: this kind of policy cannot be stored.
    """
    return pack_policy(policy).save(folder)


def pack_policy(policy: Policy) -> PackedPolicy:
    """A policy as plain data.

    Raises:
        ArtifactError: this kind of policy cannot be stored.
    """
    files: dict[str, bytes] = {}
    if isinstance(policy, NetworkPolicy):
        files[MODEL_FILE] = policy.model
    elif isinstance(policy, TablePolicy):
        files[TABLE_FILE] = policy.to_bytes()
    elif not isinstance(policy, Rule):
        raise ArtifactError(f"{policy.spec.name}: a {type(policy).__name__} cannot be stored")
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return PackedPolicy(replace(policy.spec, files=hashes), files)


def find_policy_folder(path: Path) -> Path:
    """The artifact's folder: `path` itself, or the `policy` folder of a run.

    Raises:
        ArtifactError: neither is one.
    """
    for candidate in (path, path / "policy"):
        if (candidate / SPEC_FILE).is_file():
            return candidate
    if not path.exists():
        raise ArtifactError(f"{path}: no such folder")
    raise ArtifactError(f"{path}: holds no {SPEC_FILE}; allowed: a policy folder, or a run folder with policy/ inside")


def load_policy(path: Path | str) -> Policy:
    """Load an artifact, checking schema, hashes, operators and spaces.

    Args:
        path: a policy folder, or a run folder.

    Raises:
        ArtifactError: naming the file and what is wrong with it.
    """
    folder = find_policy_folder(Path(path))
    return read_packed(folder).unpack(str(folder / SPEC_FILE))


def read_packed(folder: Path) -> PackedPolicy:
    """An artifact's description and files, their hashes checked.

    Raises:
        ArtifactError: naming the file and what is wrong with it.
    """
    spec = read_spec(folder)
    if spec.kind == "rule":
        _refuse_imports(spec, str(folder / SPEC_FILE))
    return PackedPolicy(spec, _read_files(folder, spec))


def as_stored(spec: PolicySpec) -> PolicySpec:
    """The description as it comes back from policy.json: numbers of the schema's types, lists where tuples were."""
    return _SPEC.validate_python(json.loads(json.dumps(asdict(spec), allow_nan=False)))


def describe_env(spec: PolicySpec, where: str) -> EnvDescription:
    """The environment a policy was made for.

    Args:
        spec: names it and its parameters.
        where: what an error message begins with.

    Raises:
        ArtifactError: there is no such environment, or a parameter is not allowed.
    """
    try:
        return env_of(spec)
    except (TypeError, ValueError) as error:
        message = str(error)
        if message.startswith("env: "):
            raise ArtifactError(f"{where}: env_id: {message.removeprefix('env: ')}") from None
        raise ArtifactError(f"{where}: env_params.{message.removeprefix('params.')}") from None


def _refuse_imports(spec: PolicySpec, where: str) -> None:
    """A rule needs its environment; what lies in a folder may not say what is to be imported for it.

    Raises:
        ArtifactError: a module that nothing here has imported.
    """
    module = split_id(spec.env_id)[0]
    try:
        import_modules()
        wrappers = wrapper_names(spec.env_options.get("wrappers", ()))
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{where}: env_options: {error}") from None
    for name in (module, *(wrapper.partition(":")[0] for wrapper in wrappers)):
        if name and name not in sys.modules and name.partition(".")[0] not in ("gymnasium", "scalepilot_envs"):
            raise ArtifactError(
                f"{where}: needs module {name[:80]!r}, which is not imported; allowed: modules named in {MODULES_VARIABLE}"
            )


def read_spec(folder: Path) -> PolicySpec:
    """Read and check `policy.json` alone.

    Raises:
        ArtifactError: unreadable, too large, not JSON, or not the schema.
    """
    path = folder / SPEC_FILE
    try:
        if path.stat().st_size > _MAX_SPEC_BYTES:
            raise ArtifactError(f"{path}: {path.stat().st_size} bytes; allowed: up to {_MAX_SPEC_BYTES}")
        raw = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: is not JSON, or is cut off ({str(error)[:80]})") from None
    try:
        return _SPEC.validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "top level"
        raise ArtifactError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _read_files(folder: Path, spec: PolicySpec) -> dict[str, bytes]:
    present = {p.name for p in folder.iterdir()} - {SPEC_FILE}
    for name in sorted(present - set(spec.files)):
        raise ArtifactError(
            f"{folder / name}: is not listed in {SPEC_FILE}; a policy folder holds nothing else (and never a pickle)"
        )
    contents: dict[str, bytes] = {}
    for name, expected in spec.files.items():
        path = folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise ArtifactError(f"{path}: is listed in {SPEC_FILE} but missing")
        if path.stat().st_size > _MAX_MODEL_BYTES:
            raise ArtifactError(f"{path}: {path.stat().st_size} bytes; allowed: up to {_MAX_MODEL_BYTES}")
        contents[name] = path.read_bytes()
        actual = hashlib.sha256(contents[name]).hexdigest()
        if actual != expected:
            raise ArtifactError(
                f"{path}: sha256 {actual[:12]}… differs from {expected[:12]}… in {SPEC_FILE}; the file was changed or cut off"
            )
    return contents
