"""What an ONNX file contains, read from its bytes: operators and external data, without the onnx package.

Only the wire format of protocol buffers is walked: ModelProto.graph = 7; GraphProto.node = 1, .initializer = 5;
NodeProto.op_type = 4, .attribute = 5, .domain = 7; TensorProto.data_location = 14 (1 = external).
"""

from __future__ import annotations

from collections.abc import Iterator

from scalepilot.errors import ArtifactError

STANDARD_DOMAINS = ("", "ai.onnx")
# Operators that hold graphs of their own: nothing we export needs them, and they can loop for ever.
FORBIDDEN_OPERATORS = ("If", "Loop", "Scan", "SequenceMap")
_GRAPH, _NODE, _INITIALIZER, _OP_TYPE, _DOMAIN, _DATA_LOCATION, _EXTERNAL = 7, 1, 5, 4, 7, 14, 1


def check_model_bytes(model: bytes) -> None:
    """Refuse a model with anything but standard operators and weights inside.

    Raises:
        ArtifactError: not ONNX, a foreign or looping operator, or external data.
    """
    try:
        graphs = [value for number, value in _fields(model) if number == _GRAPH and isinstance(value, bytes)]
        if len(graphs) != 1:
            raise ArtifactError(f"model.onnx: holds {len(graphs)} graphs; allowed: one ONNX graph")
        nodes = 0
        for number, value in _fields(graphs[0]):
            if number == _NODE and isinstance(value, bytes):
                nodes += 1
                _check_node(value)
            if number == _INITIALIZER and isinstance(value, bytes) and (_DATA_LOCATION, _EXTERNAL) in list(_fields(value)):
                raise ArtifactError("model.onnx: keeps weights in another file; allowed: one file with the weights inside")
    except (IndexError, ValueError):
        raise ArtifactError("model.onnx: is not an ONNX file, or is cut off") from None
    if not nodes:
        raise ArtifactError("model.onnx: holds no operators")


def _check_node(node: bytes) -> None:
    named = {
        number: value.decode("utf-8")
        for number, value in _fields(node)
        if number in (_OP_TYPE, _DOMAIN) and isinstance(value, bytes)
    }
    operator, domain = named.get(_OP_TYPE, ""), named.get(_DOMAIN, "")
    if domain not in STANDARD_DOMAINS or operator in FORBIDDEN_OPERATORS:
        raise ArtifactError(
            f"model.onnx: operator {domain + '.' if domain else ''}{operator} is not allowed; allowed: standard ONNX, no loops"
        )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise ValueError("varint too long")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("cut off")
            yield number, data[at : at + length]
            at += length
        else:
            raise ValueError(f"wire type {wire}")
