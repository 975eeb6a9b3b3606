"""Who made an artifact: an Ed25519 signature over policy.json, which holds the hashes of every other file.

The hashes prove that nothing changed by accident; the signature proves who wrote them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalepilot.errors import ArtifactError, InputError
from scalepilot.files.ownership import read_own
from scalepilot.policy.artifact import as_stored

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from scalepilot.policy.spec import PolicySpec

ALGORITHM = "ed25519"
_MAX_KEY_BYTES = 100_000


def signed_bytes(values: Mapping[str, Any]) -> bytes:
    """What is signed: everything in policy.json but the signature, as JSON with sorted keys.

    Args:
        values: as policy.json holds them.
    """
    signed = {key: value for key, value in values.items() if key != "signature"}
    actions = signed.get("actions")
    if isinstance(actions, list):
        # Signed before there were any, an action has no value.
        signed["actions"] = [_without_no_value(action) for action in actions]
    return json.dumps(signed, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def _without_no_value(action: Any) -> Any:
    if not isinstance(action, dict) or action.get("value", 0) is not None:
        return action
    return {key: value for key, value in action.items() if key != "value"}


def sign(spec: PolicySpec, key: Ed25519PrivateKey) -> PolicySpec:
    """The same description with a signature.

    Args:
        spec: with the hashes of the artifact's files, as `pack_policy` gives it.
        key: whose signature.
    """
    # A bound of 60 is read back as 60.0: what is signed must be what a reader will check.
    spec = as_stored(spec)
    value = base64.b64encode(key.sign(signed_bytes(_as_json(spec)))).decode()
    return replace(spec, signature={"algorithm": ALGORITHM, "value": value})


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read an unencrypted Ed25519 private key (PEM, PKCS #8), as `openssl genpkey -algorithm ed25519` writes it.

    Raises:
        InputError: unreadable, or another kind of key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(read_own(path, "key", most_bytes=_MAX_KEY_BYTES), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError(f"{path}: is no private key; allowed: an unencrypted Ed25519 key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path}: is a {type(key).__name__}; allowed: an Ed25519 private key in PEM")
    return key


class PublicKeys:
    """Keys whose signatures count.

    Args:
        path: one or more Ed25519 public keys, PEM, one after another.

    Raises:
        InputError: unreadable, none, or another kind of key.
    """

    def __init__(self, path: Path) -> None:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        end = b"-----END PUBLIC KEY-----"
        parts = [part + end for part in read_own(path, "public key", most_bytes=_MAX_KEY_BYTES).split(end)[:-1]]
        self._keys: list[Ed25519PublicKey] = []
        try:
            keys = [load_pem_public_key(part.strip()) for part in parts]
        except (ValueError, UnsupportedAlgorithm):
            raise InputError(f"{path}: is no public key; allowed: Ed25519 public keys in PEM") from None
        for key in keys:
            if not isinstance(key, Ed25519PublicKey):
                raise InputError(f"{path}: holds a {type(key).__name__}; allowed: Ed25519 public keys in PEM")
            self._keys.append(key)
        if not self._keys:
            raise InputError(f"{path}: holds no public key; allowed: Ed25519 public keys in PEM")

    def verify(self, spec: PolicySpec, where: str) -> None:
        """Refuse an artifact that none of the keys signed.

        Args:
            spec: as read from the artifact.
            where: what an error message begins with.

        Raises:
            ArtifactError: no signature, an unreadable one, or one of somebody else.
        """
        self.verify_stored(_as_json(spec), where)

    def verify_stored(self, values: Any, where: str) -> None:
        """The same before anything is made of what policy.json holds.

        Args:
            values: as policy.json holds them, whatever that is.
            where: what an error message begins with.

        Raises:
            ArtifactError: no signature, an unreadable one, or one of somebody else.
        """
        from cryptography.exceptions import InvalidSignature

        given = values.get("signature") if isinstance(values, dict) else None
        if not given:
            raise ArtifactError(f"{where}: is not signed; allowed: artifacts signed with one of {len(self._keys)} keys")
        try:
            if given["algorithm"] != ALGORITHM:
                raise ValueError
            value = base64.b64decode(given["value"], validate=True)
        except (KeyError, TypeError, ValueError, IndexError):
            raise ArtifactError(
                f"{where}: signature: cannot be read; allowed: {{'algorithm': 'ed25519', 'value': base64}}"
            ) from None
        message = signed_bytes(values)
        for key in self._keys:
            try:
                key.verify(value, message)
            except InvalidSignature:
                continue
            return
        raise ArtifactError(
            f"{where}: signature: is of none of the {len(self._keys)} keys, or the artifact was changed after signing"
        )


def _as_json(spec: PolicySpec) -> dict[str, Any]:
    """A description as policy.json holds it."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(spec), allow_nan=False))
    return values
