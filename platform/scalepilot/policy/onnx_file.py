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
# A model of a thousand layers has some tens of thousands; what has more is looked at for minutes.
_MAX_FIELDS = 200_000
_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1


def check_model_bytes(model: bytes) -> None:
    """Refuse a model with anything but standard operators and weights inside.

    Raises:
        ArtifactError: not ONNX, a foreign or looping operator, or external data.
    """
    try:
        walk = _Walk()
        parts = list(walk.fields(memoryview(model)))
        if any(number == _FUNCTIONS for number, _ in parts):
            raise ArtifactError("model.onnx: defines functions of its own; allowed: standard operators")
        graphs = [value for number, value in parts if number == _GRAPH and isinstance(value, memoryview)]
        if len(graphs) != 1:
            raise ArtifactError(f"model.onnx: holds {len(graphs)} graphs; allowed: one ONNX graph")
        nodes = 0
        for number, value in walk.fields(graphs[0]):
            if number == _NODE and isinstance(value, memoryview):
                nodes += 1
                walk.check_node(value)
            elif number == _INITIALIZER and isinstance(value, memoryview):
                walk.check_tensor(value)
            elif number == _SPARSE_INITIALIZER and isinstance(value, memoryview):
                walk.check_sparse_tensor(value)
    except (IndexError, ValueError):
        raise ArtifactError("model.onnx: is not an ONNX file, or is cut off") from None
    if not nodes:
        raise ArtifactError("model.onnx: holds no operators")


class _Walk:
    """Reads fields of one file, and no more of them than one has."""

    def __init__(self) -> None:
        self._left = _MAX_FIELDS

    def fields(self, data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """Number and value of every field: a whole number, or bytes that are not copied."""
        at = 0
        while at < len(data):
            self._left -= 1
            if self._left < 0:
                raise ArtifactError(f"model.onnx: holds more than {_MAX_FIELDS} values; allowed: an ordinary network")
            tag, at = _varint(data, at)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise ValueError("field 0")
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

    def check_node(self, node: memoryview) -> None:
        """A node: its operator, and what its attributes hold."""
        named = {
            number: bytes(value).decode("utf-8")
            for number, value in self.fields(node)
            if number in (_OP_TYPE, _DOMAIN) and isinstance(value, memoryview)
        }
        operator, domain = named.get(_OP_TYPE, ""), named.get(_DOMAIN, "")
        if domain not in STANDARD_DOMAINS or operator in FORBIDDEN_OPERATORS:
            named_fully = f"{domain}.{operator}" if domain else operator
            raise ArtifactError(f"model.onnx: operator {named_fully[:80]} is not allowed; allowed: standard ONNX, no loops")
        for number, attribute in self.fields(node):
            if number == _ATTRIBUTE and isinstance(attribute, memoryview):
                self.check_attribute(operator, attribute)

    def check_attribute(self, operator: str, attribute: memoryview) -> None:
        """An attribute of an operator."""
        for number, value in self.fields(attribute):
            if number in _GRAPHS and isinstance(value, memoryview):
                raise ArtifactError(
                    f"model.onnx: operator {operator[:80]} holds a graph of its own; allowed: standard ONNX, no loops"
                )
            if number in _TENSORS and isinstance(value, memoryview):
                self.check_tensor(value)
            if number in _SPARSE_TENSORS and isinstance(value, memoryview):
                self.check_sparse_tensor(value)

    def check_sparse_tensor(self, sparse: memoryview) -> None:
        """Weights that are mostly zeros."""
        for _, value in self.fields(sparse):
            if isinstance(value, memoryview):
                self.check_tensor(value)

    def check_tensor(self, tensor: memoryview) -> None:
        """Weights."""
        if any(
            number == _EXTERNAL_DATA or (number, value) == (_DATA_LOCATION, _EXTERNAL) for number, value in self.fields(tensor)
        ):
            raise ArtifactError("model.onnx: keeps weights in another file; allowed: one file with the weights inside")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise ValueError("varint too long")
