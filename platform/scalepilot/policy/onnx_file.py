"""What an ONNX file contains, read from its bytes: operators and external data, without the onnx package.

Only the wire format of protocol buffers is walked: ModelProto.graph = 7, .functions = 25; GraphProto.node = 1,
.initializer = 5, .sparse_initializer = 15; NodeProto.op_type = 4, .attribute = 5, .domain = 7; AttributeProto.t = 5, .g = 6,
.tensors = 10, .graphs = 11, .sparse_tensor = 22, .sparse_tensors = 23; SparseTensorProto.values = 1, .indices = 2;
TensorProto.external_data = 13, .data_location = 14 (1 = external).
"""

from __future__ import annotations

from collections.abc import Iterator

from scalepilot.errors import ArtifactError

STANDARD_DOMAINS = ("", "ai.onnx")
# Operators that hold graphs of their own: nothing we export needs them, and they can loop for ever.
FORBIDDEN_OPERATORS = ("If", "Loop", "Scan", "SequenceMap")
_GRAPH, _FUNCTIONS, _NODE, _INITIALIZER, _SPARSE_INITIALIZER = 7, 25, 1, 5, 15
_OP_TYPE, _ATTRIBUTE, _DOMAIN = 4, 5, 7
_TENSORS, _GRAPHS, _SPARSE_TENSORS = (5, 10), (6, 11), (22, 23)
_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1


def check_model_bytes(model: bytes) -> None:
    """Refuse a model with anything but standard operators and weights inside.

    Raises:
        ArtifactError: not ONNX, a foreign or looping operator, or external data.
    """
    try:
        parts = list(_fields(model))
        if any(number == _FUNCTIONS for number, _ in parts):
            raise ArtifactError("model.onnx: defines functions of its own; allowed: standard operators")
        graphs = [value for number, value in parts if number == _GRAPH and isinstance(value, bytes)]
        if len(graphs) != 1:
            raise ArtifactError(f"model.onnx: holds {len(graphs)} graphs; allowed: one ONNX graph")
        nodes = 0
        for number, value in _fields(graphs[0]):
            if number == _NODE and isinstance(value, bytes):
                nodes += 1
                _check_node(value)
            elif number == _INITIALIZER and isinstance(value, bytes):
                _check_tensor(value)
            elif number == _SPARSE_INITIALIZER and isinstance(value, bytes):
                _check_sparse_tensor(value)
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
    for number, attribute in _fields(node):
        if number == _ATTRIBUTE and isinstance(attribute, bytes):
            _check_attribute(operator, attribute)


def _check_attribute(operator: str, attribute: bytes) -> None:
    for number, value in _fields(attribute):
        if number in _GRAPHS and isinstance(value, bytes):
            raise ArtifactError(f"model.onnx: operator {operator} holds a graph of its own; allowed: standard ONNX, no loops")
        if number in _TENSORS and isinstance(value, bytes):
            _check_tensor(value)
        if number in _SPARSE_TENSORS and isinstance(value, bytes):
            _check_sparse_tensor(value)


def _check_sparse_tensor(sparse: bytes) -> None:
    for _, value in _fields(sparse):
        if isinstance(value, bytes):
            _check_tensor(value)


def _check_tensor(tensor: bytes) -> None:
    if any(number == _EXTERNAL_DATA or (number, value) == (_DATA_LOCATION, _EXTERNAL) for number, value in _fields(tensor)):
        raise ArtifactError("model.onnx: keeps weights in another file; allowed: one file with the weights inside")


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
