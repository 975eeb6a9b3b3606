"""What a model.onnx says of itself, so that it can be used without its policy.json: fields, actions, decision rule, version.

Written into and read from the file's bytes, without the onnx package: ModelProto.metadata_props = 14, of StringStringEntryProto
(key = 1, value = 2).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from scalepilot.policy.spec import PolicySpec

PREFIX = "scalepilot."
_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
_VARINT, _BYTES = 0, 2


def model_metadata(spec: PolicySpec) -> dict[str, str]:
    """Key → text; the same for the same description.

    `fields` and `actions` (or `components`, of a continuous action) are JSON lists in the order of the model's input and output.
    """
    fields = [_told(asdict(f), ("name", "unit", "low", "high", "dtype", "shape", "axes")) for f in spec.observation_fields]
    told: dict[str, Any] = {
        "name": spec.name,
        "version": spec.version,
        "env_id": spec.env_id,
        "decision_rule": spec.decision_rule,
        "fields": fields,
    }
    if spec.components:
        told["components"] = [_told(asdict(c), ("name", "unit", "low", "high")) for c in spec.components]
    else:
        told["actions"] = [_told(asdict(a), ("index", "kind", "size", "label", "value")) for a in spec.actions]
    return {
        PREFIX + key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in told.items()
    }


def with_metadata(model: bytes, metadata: Mapping[str, str]) -> bytes:
    """The model with this metadata and no other.

    Raises:
        ValueError: it is not ONNX, or is cut off.
    """
    kept = b"".join(raw for number, raw in _parts(model) if number != _METADATA_PROPS)
    entries = (_text(_KEY, key) + _text(_VALUE, value) for key, value in sorted(metadata.items()))
    return kept + b"".join(_chunk(_METADATA_PROPS, entry) for entry in entries)


def _told(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Those that say something: an empty shape does not."""
    return {name: values[name] for name in names if values[name] not in ((), None)}


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Field number and raw bytes of every field of a message that holds numbers and messages alone."""
    at = 0
    while at < len(data):
        begin = at
        tag, at = _varint(data, at)
        if tag & 7 == _BYTES:
            length, at = _varint(data, at)
            at += length
        elif tag & 7 == _VARINT:
            _, at = _varint(data, at)
        else:
            raise ValueError(f"wire type {tag & 7}")
        if at > len(data):
            raise ValueError("cut off")
        yield tag >> 3, data[begin:at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
    raise ValueError("cut off")


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _chunk(number: int, data: bytes) -> bytes:
    return _number(number << 3 | _BYTES) + _number(len(data)) + data


def _text(number: int, text: str) -> bytes:
    return _chunk(number, text.encode())
