"""`scalepilot policy list|show|export|sign|verify-signature|keygen`: what policies there are, and whose."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalepilot.policy import PackedPolicy, PolicySpec
    from scalepilot.report.policy_list import PolicyEntry

HELP = "list, show, export and sign policies, and check signatures"
_WHAT = "list|show|export|sign|verify-signature|keygen"
_PRIVATE_FILE, _PUBLIC_FILE = "private.pem", "public.pem"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `policy`."""
    what = parser.add_subparsers(dest="what", metavar=_WHAT, required=True)
    listing = what.add_parser("list", help="list policies, one per line")
    listing.add_argument(
        "folders",
        nargs="*",
        type=Path,
        default=[Path("runs")],
        metavar="FOLDER",
        help="runs, policies, or folders of them (default: runs)",
    )
    showing = what.add_parser("show", help="show fields with units and ranges, actions, origin, evaluation, files with hashes")
    for command in (listing, showing):
        command.add_argument("--json", action="store_true", help="print JSON")
    exporting = what.add_parser("export", help="copy a policy with its run's evaluation, after checking its hashes")
    signing = what.add_parser("sign", help="sign a policy: an Ed25519 signature in its policy.json replaces any other")
    verifying = what.add_parser("verify-signature", help="check a policy's hashes, and that one of the given keys signed it")
    for command in (showing, exporting, signing, verifying):
        command.add_argument("policy", type=Path, metavar="RUN_OR_POLICY", help="run or policy folder")
    exporting.add_argument("folder", type=Path, metavar="FOLDER", help="the new policy folder")
    exporting.add_argument("--name", help="new name (letters, digits, '.', '_', '-')")
    exporting.add_argument("--version", help="new version, likewise")
    exporting.add_argument("--force", action="store_true", help="replace an existing policy")
    signing.add_argument("--key", type=Path, required=True, metavar="FILE", help="Ed25519 private key (PEM), see keygen")
    verifying.add_argument("--keys", type=Path, required=True, metavar="FILE", help="file of Ed25519 public keys (PEM)")
    making = what.add_parser("keygen", help=f"make a pair of keys: {_PRIVATE_FILE}, {_PUBLIC_FILE}")
    making.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for them; existing keys stay")


def run(arguments: argparse.Namespace) -> int:
    """List, show, export, sign, check or make keys."""
    from scalepilot.errors import InputError

    actions = {
        "list": _list,
        "show": _show,
        "export": _export,
        "sign": _sign,
        "verify-signature": _verify_signature,
        "keygen": _keygen,
    }
    try:
        return actions[arguments.what](arguments)
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name}: is not installed; install it with: pip install 'scalepilot[serve]'") from None


def _list(arguments: argparse.Namespace) -> int:
    from scalepilot.errors import printable
    from scalepilot.report.policy_list import find_policies

    entries = find_policies(arguments.folders)
    if arguments.json:
        print(json.dumps([_as_json(entry) for entry in entries], indent=1, ensure_ascii=False, allow_nan=False))
        return _checked(entries)
    rows = [["policy", "kind", "environment", "algorithm", "result", "signed", "folder"], *map(_cells, entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for *cells, folder in rows:
        # Paths come last and as long as they are: a line is for `grep` and `cut`, too.
        print(printable("  ".join([*(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)), folder])))
    return _checked(entries)


def _checked(entries: Sequence[PolicyEntry]) -> int:
    """0, once all are listed.

    Raises:
        InputError: one is damaged.
    """
    from scalepilot.errors import InputError
    from scalepilot.policy.artifact import SPEC_FILE

    damaged = [entry for entry in entries if entry.problem]
    if damaged:
        more = f" (and {len(damaged) - 1} more, listed as unreadable)" if len(damaged) > 1 else ""
        raise InputError(f"{damaged[0].path / SPEC_FILE}: {damaged[0].problem}{more}")
    return 0


def _cells(entry: PolicyEntry) -> list[str]:
    spec = entry.spec
    if spec is None:
        return ["unreadable", "-", "-", "-", "-", "-", f"{entry.path} ({entry.problem})"]
    signed = "yes" if spec.signature else "no"
    env = spec.env_id.rpartition("/")[2]
    return [f"{spec.name}@{spec.version}", spec.kind, env, _algorithm(spec), _result(entry), signed, str(entry.path)]


def _as_json(entry: PolicyEntry) -> dict[str, Any]:
    if entry.spec is None:
        return {"path": str(entry.path), "problem": entry.problem}
    spec, figure = entry.spec, entry.figure
    return {
        "path": str(entry.path),
        "name": spec.name,
        "version": spec.version,
        "kind": spec.kind,
        "env_id": spec.env_id,
        "algorithm": _algorithm(spec),
        "signed": spec.signature is not None,
        "result": None if figure is None else {"metric": figure[0], "mean": figure[1]},
    }


def _algorithm(spec: PolicySpec) -> str:
    """Who trained it; a rule's own name, and how it was tuned."""
    made = str(spec.provenance.get("algorithm", ""))
    if spec.rule:
        return str(spec.rule.get("name")) + (f" ({made})" if made else "")
    return made or "-"


def _result(entry: PolicyEntry) -> str:
    from scalepilot.report.run_tables import figure_text

    if entry.figure is None:
        return "-"
    name, mean = entry.figure
    return f"{figure_text(mean)} {'J/h' if name == 'J' else 'return'}"


def _packed(path: Path) -> tuple[Path, PackedPolicy]:
    """The artifact's folder and everything in it, its hashes checked."""
    from scalepilot.policy import find_policy_folder, read_packed

    folder = find_policy_folder(path)
    return folder, read_packed(folder)


def _show(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from scalepilot.cli.policy_show import print_policy
    from scalepilot.report.policy_list import stored_evaluation

    folder, packed = _packed(arguments.policy)
    spec = packed.spec
    evaluation = stored_evaluation(folder, spec)
    sizes = {name: len(data) for name, data in packed.files.items()}
    if arguments.json:
        files = {name: {"sha256": spec.files[name], "bytes": size} for name, size in sizes.items()}
        shown = asdict(spec) | {"path": str(folder), "evaluation": evaluation, "files": files}
        print(json.dumps(shown, indent=1, ensure_ascii=False, allow_nan=False))
        return 0
    print_policy(folder, spec, evaluation, sizes)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from scalepilot.errors import InputError
    from scalepilot.policy import PackedPolicy, read_packed
    from scalepilot.policy.artifact import SPEC_FILE
    from scalepilot.report.policy_list import renamed, stored_evaluation

    folder, packed = _packed(arguments.policy)
    # A copy that nobody can load helps nobody.
    packed.unpack(str(folder / SPEC_FILE))
    old, target = packed.spec, arguments.folder
    if target.exists() or target.is_symlink():
        if not arguments.force:
            raise InputError(f"{target}: exists already; allowed: a new folder, or --force")
        if not (target / SPEC_FILE).is_file() or target.is_symlink():
            raise InputError(f"{target}: is not a policy folder; --force only replaces policies")
    name, version = arguments.name or old.name, arguments.version or old.version
    provenance = dict(old.provenance)
    if (name, version) != (old.name, old.version):
        provenance["exported_from"] = f"{old.name}@{old.version}"
    evaluation = renamed(stored_evaluation(folder, old), old.name, name)
    try:
        spec = replace(old, name=name, version=version, provenance=provenance, evaluation=evaluation)
    except ValueError as error:
        raise InputError(f"--{error}") from None
    was_signed = spec != old and old.signature is not None
    if was_signed:
        spec = replace(spec, signature=None)
    copied = PackedPolicy(spec, packed.files)
    _save(copied.with_named_model() if (name, version) != (old.name, old.version) else copied, target)
    read_packed(target)
    print(f"exported {spec.name}@{spec.version} to {target}" + ("; sign it again: its content has changed" if was_signed else ""))
    return 0


def _save(packed: PackedPolicy, folder: Path) -> None:
    from scalepilot.errors import InputError

    try:
        packed.save(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None


def _sign(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from scalepilot.policy.signature import load_private_key, sign

    key = load_private_key(arguments.key)
    folder, packed = _packed(arguments.policy)
    signed = replace(packed, spec=sign(packed.spec, key))
    _save(signed, folder)
    again = "" if packed.spec.signature is None else ", replacing its previous signature"
    print(f"signed {signed.spec.name}@{signed.spec.version} in {folder} with {_fingerprint(key.public_key())}{again}")
    return 0


def _verify_signature(arguments: argparse.Namespace) -> int:
    from scalepilot.policy.signature import PublicKeys

    keys = PublicKeys(arguments.keys)
    folder, packed = _packed(arguments.policy)
    keys.verify(packed.spec, str(folder))
    print(f"ok: {packed.spec.name}@{packed.spec.version} in {folder} is signed with a key of {arguments.keys}")
    return 0


def _keygen(arguments: argparse.Namespace) -> int:
    import os

    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from scalepilot.errors import InputError

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    folder: Path = arguments.out
    for name in (_PRIVATE_FILE, _PUBLIC_FILE):
        if (folder / name).exists():
            raise InputError(f"{folder / name}: exists already; allowed: a folder without keys")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, data, mode in ((_PRIVATE_FILE, private, 0o600), (_PUBLIC_FILE, public, 0o644)):
            # Never, not even for a moment, readable for others.
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    print(f"made {_fingerprint(key.public_key())}")
    print(f"{folder / _PRIVATE_FILE}  keep it secret; use: scalepilot policy sign … --key")
    print(f"{folder / _PUBLIC_FILE}   `scalepilot serve … --require-signature`")
    return 0


def _fingerprint(public_key: Any) -> str:
    """A name for a key that people can compare."""
    import hashlib

    from cryptography.hazmat.primitives import serialization

    raw = public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return f"key {hashlib.sha256(raw).hexdigest()[:16]}"
