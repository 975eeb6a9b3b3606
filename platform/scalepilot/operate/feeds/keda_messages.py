"""Messages of KEDA's `externalscaler.ExternalScaler`, made at run time.

From descriptors and not from generated code, which is bound to the version of protobuf that it was made with.
Source: pkg/scalers/externalscaler/externalscaler.proto of KEDA 2.20.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

PACKAGE, SERVICE = "externalscaler", "externalscaler.ExternalScaler"
# message → (field, number, type); `map` is from text to text, `[X]` any number of X.
_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "ScaledObjectRef": (("name", 1, "string"), ("namespace", 2, "string"), ("scalerMetadata", 3, "map")),
    "IsActiveResponse": (("result", 1, "bool"),),
    "MetricSpec": (("metricName", 1, "string"), ("targetSize", 2, "int64"), ("targetSizeFloat", 3, "double")),
    "GetMetricSpecResponse": (("metricSpecs", 1, "[MetricSpec]"),),
    "GetMetricsRequest": (("scaledObjectRef", 1, "ScaledObjectRef"), ("metricName", 2, "string")),
    "MetricValue": (("metricName", 1, "string"), ("metricValue", 2, "int64"), ("metricValueFloat", 3, "double")),
    "GetMetricsResponse": (("metricValues", 1, "[MetricValue]"),),
}
# method → request, response, whether the response is a stream.
METHODS: dict[str, tuple[str, str, bool]] = {
    "IsActive": ("ScaledObjectRef", "IsActiveResponse", False),
    "StreamIsActive": ("ScaledObjectRef", "IsActiveResponse", True),
    "GetMetricSpec": ("ScaledObjectRef", "GetMetricSpecResponse", False),
    "GetMetrics": ("GetMetricsRequest", "GetMetricsResponse", False),
    "StreamMetricSpec": ("ScaledObjectRef", "GetMetricSpecResponse", True),
}
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "bool": _Field.TYPE_BOOL,
    "int64": _Field.TYPE_INT64,
    "double": _Field.TYPE_DOUBLE,
}


def file_descriptor() -> Any:
    """The whole interface, as protoc would describe it."""
    found = descriptor_pb2.FileDescriptorProto(name=f"{PACKAGE}.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = found.message_type.add(name=name)
        for field_name, number, kind in fields:
            _add(message, field_name, number, kind)
    service = found.service.add(name=SERVICE.partition(".")[2])
    for name, (request, response, streamed) in METHODS.items():
        types = {"input_type": f".{PACKAGE}.{request}", "output_type": f".{PACKAGE}.{response}"}
        service.method.add(name=name, server_streaming=streamed or None, **types)
    return found


def _add(message: Any, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
        return
    field.type = _Field.TYPE_MESSAGE
    if kind == "map":
        # A map is written as pairs, of a type within the message.
        entry = message.nested_type.add(name=f"{name[0].upper()}{name[1:]}Entry")
        entry.options.map_entry = True
        _add(entry, "key", 1, "string")
        _add(entry, "value", 2, "string")
        kind = f"[{message.name}.{entry.name}]"
    if kind.startswith("["):
        field.label, kind = _Field.LABEL_REPEATED, kind[1:-1]
    field.type_name = f".{PACKAGE}.{kind}"


def _made() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file_descriptor())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES}


MESSAGES: dict[str, Any] = _made()


def read_message(name: str, data: bytes) -> Any:
    """A message; None of what is none: gRPC would put a traceback into the log."""
    try:
        return MESSAGES[name].FromString(data)
    except DecodeError:
        return None
