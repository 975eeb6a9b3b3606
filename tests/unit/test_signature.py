"""Signatures of artifacts: whose they are, and that nothing changed since."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scalepilot.errors import ArtifactError, InputError
from scalepilot.policy import NetworkPolicy, PackedPolicy, load_policy, pack_policy, read_packed, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.policy.signature import PublicKeys, load_private_key, sign
from scalepilot_envs.autoscale import AutoscaleParams


def put_keys(folder: Path, *keys: Ed25519PrivateKey) -> PublicKeys:
    """A file of the public keys, read again."""
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    path = folder / "public.pem"
    path.write_bytes(b"".join(key.public_key().public_bytes(serialization.Encoding.PEM, kind) for key in keys))
    return PublicKeys(path)


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def signed(tmp_path: Path, tiny_network: Callable[..., NetworkPolicy], key: Ed25519PrivateKey) -> Path:
    """The folder of a signed network with an evaluation."""
    packed = pack_policy(tiny_network(evaluation={"policies": {"tiny": {"J": {"mean": 20.5}}}}))
    replace(packed, spec=sign(packed.spec, key)).save(tmp_path / "signed")
    return tmp_path / "signed"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "policy.json"
    spec = json.loads(path.read_text())
    change(spec)
    path.write_text(json.dumps(spec))


def check(keys: PublicKeys, folder: Path) -> None:
    keys.verify(read_packed(folder).spec, str(folder))


def test_a_signature_survives_saving_and_loading(tmp_path: Path, signed: Path, key: Ed25519PrivateKey) -> None:
    keys = put_keys(tmp_path, key)
    check(keys, signed)
    read_packed(signed).save(tmp_path / "copy")
    check(keys, tmp_path / "copy")
    save_policy(load_policy(signed), tmp_path / "loaded")
    check(keys, tmp_path / "loaded")


def test_a_rule_can_be_signed_too(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    packed = pack_policy(make_rule("hpa", AutoscaleParams()))
    replace(packed, spec=sign(packed.spec, key)).save(tmp_path / "hpa")
    check(put_keys(tmp_path, key), tmp_path / "hpa")


def test_the_layout_of_the_file_does_not_matter(tmp_path: Path, signed: Path, key: Ed25519PrivateKey) -> None:
    path = signed / "policy.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(values.items())), indent=7, ensure_ascii=True))
    check(put_keys(tmp_path, key), signed)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "evaluation": lambda spec: spec["evaluation"]["policies"]["tiny"]["J"].update(mean=1.5),
    "name": lambda spec: spec.update(name="better"),
    "version": lambda spec: spec.update(version="2"),
    "field bound": lambda spec: spec["observation_fields"][0].update(high=1e9),
    "action": lambda spec: spec["actions"][0].update(size=5.0),
    "parameter": lambda spec: spec["env_params"].update(max_replicas=1000),
    "provenance": lambda spec: spec["provenance"].update(algorithm="dqn"),
    "key added": lambda spec: spec["provenance"].update(more=1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_whatever_is_changed_after_signing_is_found(
    tmp_path: Path, signed: Path, key: Ed25519PrivateKey, change: Callable[[dict[str, Any]], object]
) -> None:
    edit(signed, change)
    with pytest.raises(ArtifactError, match="changed after signing"):
        check(put_keys(tmp_path, key), signed)


def test_another_model_is_found_by_its_hash_and_its_hash_by_the_signature(
    tmp_path: Path, signed: Path, key: Ed25519PrivateKey, tiny_network: Callable[..., NetworkPolicy]
) -> None:
    keys = put_keys(tmp_path, key)
    other = tiny_network(seed=9).model
    (signed / "model.onnx").write_bytes(other)
    with pytest.raises(ArtifactError, match="sha256"):
        check(keys, signed)
    edit(signed, lambda spec: spec["files"].update({"model.onnx": hashlib.sha256(other).hexdigest()}))
    with pytest.raises(ArtifactError, match="changed after signing"):
        check(keys, signed)


def test_a_signature_of_somebody_else_does_not_count(tmp_path: Path, signed: Path) -> None:
    with pytest.raises(ArtifactError, match="none of the 2 keys"):
        check(put_keys(tmp_path, Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()), signed)


def test_a_signature_of_one_of_several_keys_counts(tmp_path: Path, signed: Path, key: Ed25519PrivateKey) -> None:
    check(put_keys(tmp_path, Ed25519PrivateKey.generate(), key, Ed25519PrivateKey.generate()), signed)


def test_a_signature_of_another_policy_does_not_count(
    tmp_path: Path, signed: Path, key: Ed25519PrivateKey, tiny_network: Callable[..., NetworkPolicy]
) -> None:
    packed = pack_policy(tiny_network(seed=3))
    foreign = replace(packed.spec, signature=read_packed(signed).spec.signature)
    with pytest.raises(ArtifactError, match="changed after signing"):
        put_keys(tmp_path, key).verify(foreign, "foreign")


def test_an_unsigned_policy_is_refused(tmp_path: Path, tiny_artifact: Path, key: Ed25519PrivateKey) -> None:
    with pytest.raises(ArtifactError, match="is not signed"):
        check(put_keys(tmp_path, key), tiny_artifact)


@pytest.mark.parametrize(
    "signature",
    [
        {"algorithm": "ed25519", "value": "no base64!"},
        {"algorithm": "none", "value": ""},
        {"algorithm": "rsa", "value": base64.b64encode(bytes(64)).decode()},
        {"value": base64.b64encode(bytes(64)).decode()},
        {"algorithm": "ed25519"},
    ],
)
def test_a_garbage_signature_cannot_be_read(
    tmp_path: Path, signed: Path, key: Ed25519PrivateKey, signature: dict[str, str]
) -> None:
    edit(signed, lambda spec: spec.update(signature=signature))
    with pytest.raises(ArtifactError, match="cannot be read"):
        check(put_keys(tmp_path, key), signed)


@pytest.mark.parametrize("value", [b"", b"x", bytes(64), bytes(63), bytes(65), bytes(10_000)])
def test_signatures_of_any_length_are_refused_in_one_line(
    tmp_path: Path, signed: Path, key: Ed25519PrivateKey, value: bytes
) -> None:
    edit(signed, lambda spec: spec.update(signature={"algorithm": "ed25519", "value": base64.b64encode(value).decode()}))
    with pytest.raises(ArtifactError, match="none of the 1 keys") as caught:
        check(put_keys(tmp_path, key), signed)
    assert "\n" not in str(caught.value)


def test_signing_again_gives_the_same_bytes_and_another_key_replaces_the_first(
    tmp_path: Path, signed: Path, key: Ed25519PrivateKey
) -> None:
    packed = read_packed(signed)
    assert sign(packed.spec, key) == packed.spec
    other = Ed25519PrivateKey.generate()
    PackedPolicy(sign(packed.spec, other), packed.files).save(signed)
    check(put_keys(tmp_path, other), signed)
    with pytest.raises(ArtifactError, match="none of the 1 keys"):
        check(put_keys(tmp_path, key), signed)


def test_a_private_key_is_read_as_openssl_writes_it(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    path = tmp_path / "private.pem"
    encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(encoding, kind, serialization.NoEncryption()))
    assert load_private_key(path).private_bytes_raw() == key.private_bytes_raw()
    path.write_bytes(key.private_bytes(encoding, kind, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(InputError, match="unencrypted"):
        load_private_key(path)


def test_keys_of_other_kinds_and_files_that_hold_none_are_refused(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    other = generate_private_key(SECP256R1())
    encoding = serialization.Encoding.PEM
    path = tmp_path / "key.pem"
    path.write_bytes(other.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    with pytest.raises(InputError, match="allowed: an Ed25519 private key"):
        load_private_key(path)
    path.write_bytes(other.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(InputError, match="allowed: Ed25519 public keys"):
        PublicKeys(path)
    for text in (b"", b"hello", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", bytes(200_000)):
        path.write_bytes(text)
        for read in (load_private_key, PublicKeys):
            with pytest.raises(InputError) as caught:
                read(path)
            assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        PublicKeys(tmp_path / "absent")
    # A private key among the public ones is a mistake worth a word, not a key.
    path.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    with pytest.raises(InputError, match="holds no public key"):
        PublicKeys(path)
