"""The policy folder: written aside and renamed into place, checked in full when loaded. No pickle, ever."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from scalepilot.errors import ArtifactError, ScalepilotError
from scalepilot.files.atomic import replaced_folder
from scalepilot.files.stored import parse_json, read_bytes
from scalepilot.policy.fields import check_same_fields
from scalepilot.policy.network import MODEL_FILE, NetworkPolicy
from scalepilot.policy.onnx_metadata import model_metadata, with_metadata
from scalepilot.policy.protocol import Policy
from scalepilot.policy.rules import Rule, make_rule
from scalepilot.policy.shipped import located
from scalepilot.policy.spec import PolicySpec, env_of, unmasked
from scalepilot.policy.table import TABLE_FILE, TablePolicy
from scalepilot_envs.description import EnvDescription
from scalepilot_envs.flat_env import wrapper_names
from scalepilot_envs.registration import MODULES_VARIABLE, import_modules, split_id

if TYPE_CHECKING:
    from scalepilot.policy.signature import PublicKeys

SPEC_FILE = "policy.json"
_FILES = (MODEL_FILE, TABLE_FILE)
_MAX_SPEC_BYTES = 1_000_000
_MAX_MODEL_BYTES = 500_000_000
# Of a message: an artifact may hold a name of a megabyte.
_MAX_SHOWN = 600
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
        where = where or self.spec.name
        with refused_in_a_line(where):
            return self._unpacked(where)

    def _unpacked(self, where: str) -> Policy:
        spec, files = self.spec, self.files
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


@contextmanager
def refused_in_a_line(where: str) -> Iterator[None]:
    """Turn whatever an artifact makes others raise into one refusal of one line.

    Its numbers and names reach environments, rules, numpy, onnxruntime and msgspec, each of which has errors of its own, and
    messages repeat what it says.

    Args:
        where: what a message begins with that does not name the artifact itself.

    Raises:
        ArtifactError: in place of every other error.
    """
    try:
        yield
    except ScalepilotError as error:
        raise ArtifactError(_one_line(str(error))) from None
    except Exception as error:  # noqa: BLE001 - see above; what the process itself is asked to do (KeyboardInterrupt) passes
        raise ArtifactError(_one_line(f"{where}: cannot be loaded ({type(error).__name__}: {error})")) from None


def _one_line(text: str) -> str:
    shown = "".join(character if character.isprintable() else " " for character in text[: 2 * _MAX_SHOWN])
    shown = " ".join(shown.split())
    return shown if len(shown) <= _MAX_SHOWN else shown[: _MAX_SHOWN - 1] + "…"


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
    """The artifact's folder: `path` itself, the `policy` folder of a run, or that of a shipped policy's address.

    Raises:
        ArtifactError: neither is one.
        InputError: no such policy is shipped.
    """
    path = located(path)
    try:
        for candidate in (path, path / "policy"):
            if (candidate / SPEC_FILE).is_file():
                return candidate
        there = path.exists()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{str(path)[:_MAX_SHOWN]}: cannot be read ({error})") from None
    if not there:
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


def read_packed(folder: Path, keys: PublicKeys | None = None) -> PackedPolicy:
    """An artifact's description and files, their hashes checked.

    Args:
        folder: of the artifact.
        keys: one of them must have signed it, which is looked at before anything else; None takes unsigned ones, too.

    Raises:
        ArtifactError: naming the file and what is wrong with it.
    """
    spec = read_spec(folder, keys)
    with refused_in_a_line(str(folder)):
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


def read_spec(folder: Path, keys: PublicKeys | None = None) -> PolicySpec:
    """Read and check `policy.json` alone.

    Args:
        folder: of the artifact.
        keys: as `read_packed` takes them.

    Raises:
        ArtifactError: unreadable, too large, not JSON, not signed, or not the schema.
    """
    path = folder / SPEC_FILE
    with refused_in_a_line(str(path)):
        values = parse_json(_text(path, read_bytes(path, _MAX_SPEC_BYTES, ArtifactError)), str(path), ArtifactError)
        if keys is not None:
            # Of what a stranger wrote nothing but this is read: plain data of bounded size and depth.
            keys.verify_stored(values, str(folder))
        try:
            return _SPEC.validate_python(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "top level"
            raise ArtifactError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path}: is not JSON, or is cut off (byte {error.start} is not UTF-8)") from None


def _read_files(folder: Path, spec: PolicySpec) -> dict[str, bytes]:
    try:
        present = {p.name for p in folder.iterdir()} - {SPEC_FILE}
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be read ({error.strerror})") from None
    for name in sorted(present - set(spec.files)):
        raise ArtifactError(
            f"{folder / name}: is not listed in {SPEC_FILE}; a policy folder holds nothing else (and never a pickle)"
        )
    contents: dict[str, bytes] = {}
    for name, expected in spec.files.items():
        path = folder / name
        if name not in present or name not in _FILES or path.is_symlink():
            raise ArtifactError(f"{path}: is listed in {SPEC_FILE} but missing, or a link; allowed: {' or '.join(_FILES)} itself")
        contents[name] = read_bytes(path, _MAX_MODEL_BYTES, ArtifactError)
        actual = hashlib.sha256(contents[name]).hexdigest()
        if actual != expected:
            raise ArtifactError(
                f"{path}: sha256 {actual[:12]}… differs from {expected[:12]}… in {SPEC_FILE}; the file was changed or cut off"
            )
    return contents
