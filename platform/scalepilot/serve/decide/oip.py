"""Open Inference Protocol v2: what KServe and Triton clients speak, with Triton's binary tensors, which its client sends first.

One input, `observation`: the policy's fields in their order, (−1, num_fields), FP32 or another datatype of numbers.
Source: kserve/open-inference-protocol, "inference_rest"; triton-inference-server/server, "extension_binary_data".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from scalepilot import __version__
from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.decide.answers import Clipped
from scalepilot.serve.decide.decisions import Outcome, decide_rows
from scalepilot.serve.decide.fast import MAX_OBSERVATIONS
from scalepilot.serve.http.errors import RequestError

HEADER_LENGTH = b"inference-header-content-length"
INPUT = "observation"
_PLATFORMS = {"network": "onnx_onnxv1", "table": "scalepilot_table", "rule": "scalepilot_rule"}
_SHOWN_CHARACTERS = 60
# Datatypes of numbers, as numpy writes them.
NUMPY = {
    "BOOL": "|b1",
    **{f"{kind}{8 * size}": f"<{kind[0].lower()}{size}" for kind in ("UINT", "INT") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}
DATATYPES = tuple(NUMPY)
# Up to here a 64-bit float holds every whole number.
_EXACT = 2**53
# What the document says of a tensor's numbers, and no more: they are read by datatype, below.
_NUMBER = {"oneOf": [{"type": "number"}, {"type": "boolean"}]}
_NUMBERS = {"type": "array", "items": {"oneOf": [*_NUMBER["oneOf"], {"type": "array", "items": _NUMBER}]}}


def _shown_as(**schema: Any) -> msgspec.Meta:
    """What the document says beyond the type: our own words say what is wrong with a value."""
    return msgspec.Meta(extra_json_schema=schema)


class InferTensor(msgspec.Struct, gc=False):
    """The observation of an `InferRequest`: numbers in JSON, or behind it."""

    name: Annotated[str, _shown_as(enum=[INPUT])]
    shape: list[int]
    datatype: Annotated[str, _shown_as(enum=list(DATATYPES))]
    data: Annotated[msgspec.Raw, _shown_as(**_NUMBERS)] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] | None = None


class InferOutput(msgspec.Struct, gc=False):
    """An output that an `InferRequest` wants."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct, gc=False):
    """A request. Clients may send more keys than are listed here; they do not matter."""

    inputs: Annotated[list[InferTensor], _shown_as(minItems=1, maxItems=1)]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[InferOutput] | None = None


_METADATA = {"name": str, "datatype": str, "shape": list[int]}
# Keys and types of answers.
SERVER_METADATA = {"name": str, "version": str, "extensions": list[str]}
MODEL_METADATA = {"name": str, "versions": list[str], "platform": str, "inputs": [_METADATA], "outputs": [_METADATA]}
_OUTPUT = _METADATA | {"data?": list[float], "parameters?": dict[str, Any]}
INFERRED = {"model_name": str, "model_version": str, "outputs": [_OUTPUT], "id?": str, "parameters?": dict[str, Any]}
_REQUEST = msgspec.json.Decoder(InferRequest)
# By numpy's kind: flat, and row by row. Whole numbers are read as such, as a float would round those of 64 bits.
_DATA: dict[str, tuple[msgspec.json.Decoder[list[Any]], msgspec.json.Decoder[list[list[Any]]]]] = {
    "f": (msgspec.json.Decoder(list[float]), msgspec.json.Decoder(list[list[float]])),
    "i": (msgspec.json.Decoder(list[int | float]), msgspec.json.Decoder(list[list[int | float]])),
    "b": (msgspec.json.Decoder(list[bool | int | float]), msgspec.json.Decoder(list[list[bool | int | float]])),
}
_DATA["u"] = _DATA["i"]


def server_metadata() -> dict[str, Any]:
    """The answer of `GET /v2`."""
    return {"name": "scalepilot", "version": __version__, "extensions": ["binary_tensor_data"]}


def model_metadata(served: ServedPolicy, versions: Sequence[str]) -> dict[str, Any]:
    """The answer of `GET /v2/models/{m}`.

    Args:
        served: the version asked for, or the default one.
        versions: all that are served of this name.
    """
    return {
        "name": served.spec.name,
        "versions": list(versions),
        "platform": _PLATFORMS[served.spec.kind],
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, len(served.spec.observation_fields)]}],
        "outputs": [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in output_types(served).items()],
    }


def output_types(served: ServedPolicy) -> dict[str, tuple[str, list[int]]]:
    """Name → (datatype, shape) of every output a policy has."""
    spec = served.spec
    outputs: dict[str, tuple[str, list[int]]] = {}
    if served.components:
        outputs["action"] = ("FP32", [-1, len(served.components)])
    elif served.move_labels:
        # What the environment takes where those are whole numbers, alone or several; else the index of the action.
        width = served.action_width
        outputs["action"] = ("INT64", [-1, width] if width else [-1])
    if served.replica_bounds is not None:
        outputs["desired_replicas"] = ("INT64", [-1])
    if spec.kind != "rule" and spec.actions:
        outputs["scores"] = ("FP32", [-1, len(spec.actions)])
    return outputs


@dataclass(frozen=True)
class Inferred:
    """A response and what the metrics count of it.

    Attributes:
        body: bytes.
        header_length: of the JSON in front of binary tensors; None where all is JSON.
        outcome: the decisions themselves.
        observation: (n, num_fields) as decided on.
        clipped: fields brought into their range.
    """

    body: bytes
    header_length: int | None
    outcome: Outcome
    observation: NDArray[np.float64]
    clipped: list[Clipped] | None


def infer(served: ServedPolicy, body: bytes, header_length: bytes | None = None) -> Inferred:
    """Answer an inference request.

    Args:
        served: who decides.
        body: JSON, or JSON with tensors behind it.
        header_length: what the header of that name says: where the JSON ends.

    Raises:
        RequestError: 400 naming what is wrong.
    """
    if served.state_shapes is not None:
        raise RequestError(
            400, f"model: {served.spec.name} keeps state, which this protocol cannot carry; allowed: its :decide endpoint"
        )
    head, tail = _split(body, header_length)
    request = _parsed(head)
    tensor = _only_input(request)
    rows = _rows(served, tensor, tail)
    parameters = request.parameters or {}
    observation, clipped = _within_bounds(served, rows, clip=_flag(parameters, "clip"), half=tensor.datatype == "FP16")
    outcome = decide_rows(served, observation)
    wanted = _wanted_outputs(served, request)
    tensors, blobs = [], []
    for name, (kind, shape) in output_types(served).items():
        if name not in wanted:
            continue
        values = _output(name, outcome)
        if name == "action" and not served.components:
            values = served.whole_actions(values)
        entry: dict[str, Any] = {"name": name, "shape": [len(rows), *shape[1:]], "datatype": kind}
        if wanted[name]:
            blob = values.astype(NUMPY[kind]).tobytes()
            entry["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            entry["data"] = values.ravel().tolist()
        tensors.append(entry)
    response: dict[str, Any] = {"model_name": served.spec.name, "model_version": served.spec.version, "outputs": tensors}
    if request.id is not None:
        response["id"] = request.id
    if outcome.fell_back is not None:
        response["parameters"] = {"fallback_rows": ",".join(str(i) for i in np.flatnonzero(outcome.fell_back))}
    told = msgspec.json.encode(response)
    length = len(told) if blobs else None
    return Inferred(told + b"".join(blobs), length, outcome, observation, clipped)


def _split(body: bytes, header_length: bytes | None) -> tuple[bytes, bytes]:
    if header_length is None:
        return body, b""
    if not header_length.isdigit() or len(header_length) > 12 or int(header_length) > len(body):
        shown = header_length.decode("latin-1")[:_SHOWN_CHARACTERS]
        raise _wrong(
            f"Inference-Header-Content-Length: {shown!r} is not allowed; allowed: the length of the JSON, at most the body's"
        )
    length = int(header_length)
    return body[:length], body[length:]


def _parsed(head: bytes) -> InferRequest:
    try:
        return _REQUEST.decode(head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120].replace("`", "")
        raise _wrong(
            f'body: {what}; allowed: {{"inputs": [{{"name": "{INPUT}", "shape": [n, …], "datatype": "FP32", "data": […]}}]}}'
        ) from None


def _only_input(request: InferRequest) -> InferTensor:
    names = [tensor.name for tensor in request.inputs]
    if names != [INPUT]:
        if names.count(INPUT) > 1:
            raise _wrong(f"inputs: {INPUT} is given {names.count(INPUT)} times; allowed: once")
        foreign = next((name for name in names if name != INPUT), None)
        what = f"{INPUT} is missing" if foreign is None else f"{foreign[:_SHOWN_CHARACTERS]!r} is not allowed"
        raise _wrong(f"inputs: {what}; allowed: {INPUT} alone")
    return request.inputs[0]


def _rows(served: ServedPolicy, tensor: InferTensor, tail: bytes) -> NDArray[np.float64]:
    """(n, num_fields) as given: of the right shape and type, otherwise unchecked."""
    width = len(served.spec.observation_fields)
    if tensor.datatype not in NUMPY:
        shown = tensor.datatype[:_SHOWN_CHARACTERS]
        raise _wrong(f"{INPUT}.datatype: {shown!r} is not allowed; allowed: {', '.join(DATATYPES)}")
    dtype: np.dtype[Any] = np.dtype(NUMPY[tensor.datatype])
    shape = tensor.shape
    if len(shape) != 2 or shape[1] != width or not 1 <= shape[0] <= MAX_OBSERVATIONS:
        raise _wrong(f"{INPUT}.shape: {shape[:8]} is not allowed; allowed: [n, {width}], n from 1 to {MAX_OBSERVATIONS}")
    size = _binary_size(tensor)
    if size is not None:
        expected = dtype.itemsize * shape[0] * width
        if not isinstance(tensor.data, msgspec.UnsetType) or size != expected or len(tail) != expected:
            raise _wrong(
                f"{INPUT}: {len(tail)} bytes after the JSON, binary_data_size {size}; allowed: {expected} for shape {shape},"
                " and no data"
            )
        # A flag's byte is looked at as a number: numpy takes any but 0 for true.
        found = np.frombuffer(tail, dtype="|u1" if dtype.kind == "b" else dtype)
        return _exact(found, tensor.datatype, dtype, shape)
    if isinstance(tensor.data, msgspec.UnsetType):
        raise _wrong(f"{INPUT}.data: is missing; allowed: {shape[0] * width} numbers")
    if tail:
        raise _wrong(f"body: {len(tail)} bytes after the JSON belong to no tensor; allowed: none")
    return _numbers(tensor.data, tensor.datatype, dtype, shape)


def _binary_size(tensor: InferTensor) -> int | None:
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
        raise _wrong(f"{INPUT}.parameters.binary_data_size: {str(size)[:_SHOWN_CHARACTERS]} is not allowed; allowed: bytes")
    return size


def _numbers(data: msgspec.Raw, datatype: str, dtype: np.dtype[Any], shape: list[int]) -> NDArray[np.float64]:
    as_flat, as_rows = _DATA[dtype.kind]
    try:
        flat = as_flat.decode(data)
    except msgspec.MsgspecError:
        try:
            nested = as_rows.decode(data)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise _wrong(
                f"{INPUT}.data: {str(error)[:80].replace('`', '')}; allowed: finite numbers, flat or row by row"
            ) from None
        if len(nested) != shape[0] or any(len(row) != shape[1] for row in nested):
            raise _wrong(
                f"{INPUT}.data: {len(nested)} rows do not fill shape {shape}; allowed: {shape[0]} rows of {shape[1]}"
            ) from None
        flat = [value for row in nested for value in row]
    if len(flat) != shape[0] * shape[1]:
        raise _wrong(f"{INPUT}.data: {len(flat)} numbers do not fill shape {shape}; allowed: {shape[0] * shape[1]}")
    return _exact(np.array(flat, dtype=np.float64 if dtype.kind == "f" else object), datatype, dtype, shape)


def _exact(found: NDArray[Any], datatype: str, dtype: np.dtype[Any], shape: list[int]) -> NDArray[np.float64]:
    """The numbers in 64-bit floats, where the datatype holds them and a 64-bit float holds them unrounded.

    Args:
        found: (n × num_fields,) numbers of the datatype, 64-bit floats of JSON, or (objects) whole numbers and floats of JSON.
        datatype: as the protocol names it.
        dtype: the same as numpy's.
        shape: of the result.
    """
    if dtype.kind == "f":
        numbers = found.astype(np.float64)
        most = np.finfo(dtype).max
        # NaN and infinities of binary tensors are refused with the fields' bounds.
        wrong, allowed = np.isfinite(numbers) & (np.abs(numbers) > most), f"{-most:g} to {most:g}"
    else:
        low, high = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        if found.dtype == dtype and int(found.min()) >= -_EXACT and int(found.max()) <= _EXACT:
            return found.astype(np.float64).reshape(shape)
        kept = [low <= value <= high and int(value) == value and int(float(value)) == value for value in found.tolist()]
        wrong = ~np.array(kept, dtype=bool)
        allowed = f"whole numbers from {low} to {high}{' that a 64-bit float holds exactly' if dtype.itemsize == 8 else ''}"
        numbers = np.where(wrong, 0, found).astype(np.float64)
    if wrong.any():
        at = int(np.argmax(wrong))
        row, column = divmod(at, shape[1])
        shown = str(found[at])[:_SHOWN_CHARACTERS]
        raise _wrong(f"{INPUT}[{row}][{column}]: {shown} is not allowed for {datatype}; allowed: {allowed}")
    return numbers.reshape(shape)


def _within_bounds(
    served: ServedPolicy, rows: NDArray[np.float64], *, clip: bool, half: bool
) -> tuple[NDArray[np.float64], list[Clipped] | None]:
    fields, num_masked = served.spec.observation_fields, served.spec.num_masked
    if num_masked and not (rows[:, -num_masked:] > 0.5).any(axis=1).all():
        row = int(np.argmin((rows[:, -num_masked:] > 0.5).any(axis=1)))
        raise _wrong(f"{INPUT}[{row}]: no action is valid, its last {num_masked} numbers are 0; allowed: at least one of 1")
    low, high = served.bounds
    # Written so that NaN is outside. The numbers are FP32 or FP16: a bound may be missed by its rounding.
    outside = ~((rows >= low) & (rows <= high))
    if not outside.any():
        return rows, [[] for _ in rows] if clip else None
    with np.errstate(over="ignore"):
        of_datatype: list[NDArray[np.floating]] = [v.astype(np.float16 if half else np.float32) for v in (rows, low, high)]
    rounded, least, most = of_datatype
    outside &= ~((rounded >= least) & (rounded <= most) & np.isfinite(rows))
    row, column = (int(i) for i in np.argwhere(outside)[0]) if outside.any() else (0, 0)
    if outside.any() and not (clip and np.isfinite(rows).all()):
        field, value = fields[column], rows[row, column]
        raise _wrong(
            f"{INPUT}[{row}][{column}] ({field.name}): {value:g} is not allowed;"
            f" allowed: {field.low:g} to {field.high:g} {field.unit}"
        )
    inside = np.clip(rows, low, high)
    if not clip:
        return inside, None
    clipped: list[Clipped] = [[] for _ in rows]
    for row, column in np.argwhere(outside).tolist():
        field = fields[column]
        bounds = {"unit": field.unit, "low": field.low, "high": field.high}
        clipped[row].append({"field": field.name, "value": rows[row, column], "used": inside[row, column], **bounds})
    return inside, clipped


def _wanted_outputs(served: ServedPolicy, request: InferRequest) -> dict[str, bool]:
    """Name → whether as a binary tensor."""
    known = output_types(served)
    if not request.outputs:
        return dict.fromkeys(known, _flag(request.parameters or {}, "binary_data_output"))
    wanted = {}
    for output in request.outputs:
        if output.name not in known:
            raise _wrong(f"outputs: {output.name[:_SHOWN_CHARACTERS]!r} is not allowed; allowed: {', '.join(known)}")
        if (output.parameters or {}).get("classification"):
            raise _wrong(f"outputs.{output.name}.parameters: classification is not allowed; allowed: binary_data")
        wanted[output.name] = _flag(output.parameters or {}, "binary_data")
    return wanted


def _flag(parameters: dict[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise _wrong(f"parameters.{name}: {str(value)[:_SHOWN_CHARACTERS]!r} is not allowed; allowed: true, false")
    return value


def _output(name: str, outcome: Outcome) -> NDArray[Any]:
    values = {"action": outcome.action, "desired_replicas": outcome.desired_replicas, "scores": outcome.scores}[name]
    assert values is not None
    # JSON has no NaN; `fallback_rows` says which rows have no scores.
    return np.nan_to_num(values, nan=0.0) if outcome.fell_back is not None and values.dtype.kind == "f" else values


def _wrong(message: str) -> RequestError:
    return RequestError(400, message)
