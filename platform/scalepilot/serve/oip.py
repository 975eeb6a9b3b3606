"""Open Inference Protocol v2: what KServe and Triton clients speak, with Triton's binary tensors, which its client sends first.

One input, `observation`: the policy's fields in their order, FP32 (−1, num_fields). Source: kserve/open-inference-protocol,
"inference_rest"; triton-inference-server/server, "extension_binary_data".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from scalepilot import __version__
from scalepilot.serve.answers import Clipped
from scalepilot.serve.decisions import Outcome, decide_rows
from scalepilot.serve.errors import RequestError
from scalepilot.serve.fast import MAX_OBSERVATIONS
from scalepilot.serve.store import ServedPolicy

HEADER_LENGTH = b"inference-header-content-length"
INPUT = "observation"
_PLATFORMS = {"network": "onnx_onnxv1", "table": "scalepilot_table", "rule": "scalepilot_rule"}
_SHOWN_CHARACTERS = 60
_NUMPY = {"FP32": "<f4", "INT64": "<i8"}


class _Tensor(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] | None = None


class _Wanted(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Any] | None = None


class _Infer(msgspec.Struct, gc=False):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_Wanted] | None = None


_REQUEST = msgspec.json.Decoder(_Infer)
_FLAT, _NESTED = msgspec.json.Decoder(list[float]), msgspec.json.Decoder(list[list[float]])


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
            400, f"model: {served.spec.name} remembers, which this protocol has no place for; allowed: its :decide endpoint"
        )
    head, tail = _split(body, header_length)
    request = _parsed(head)
    tensor = _only_input(request)
    rows = _rows(served, tensor, tail)
    parameters = request.parameters or {}
    observation, clipped = _within_bounds(served, rows, clip=_flag(parameters, "clip"))
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
            blob = values.astype(_NUMPY[kind]).tobytes()
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


def _parsed(head: bytes) -> _Infer:
    try:
        return _REQUEST.decode(head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        what = "nested too deep" if isinstance(error, RecursionError) else str(error)[:120].replace("`", "")
        raise _wrong(
            f'body: {what}; allowed: {{"inputs": [{{"name": "{INPUT}", "shape": [n, …], "datatype": "FP32", "data": […]}}]}}'
        ) from None


def _only_input(request: _Infer) -> _Tensor:
    names = [tensor.name for tensor in request.inputs]
    if names != [INPUT]:
        if names.count(INPUT) > 1:
            raise _wrong(f"inputs: {INPUT} is given {names.count(INPUT)} times; allowed: once")
        foreign = next((name for name in names if name != INPUT), None)
        what = f"{INPUT} is missing" if foreign is None else f"{foreign[:_SHOWN_CHARACTERS]!r} is not allowed"
        raise _wrong(f"inputs: {what}; allowed: {INPUT} alone")
    return request.inputs[0]


def _rows(served: ServedPolicy, tensor: _Tensor, tail: bytes) -> NDArray[np.float64]:
    """(n, num_fields) as given: of the right shape and type, otherwise unchecked."""
    width = len(served.spec.observation_fields)
    if tensor.datatype != "FP32":
        raise _wrong(f"{INPUT}.datatype: {tensor.datatype[:_SHOWN_CHARACTERS]!r} is not allowed; allowed: FP32")
    shape = tensor.shape
    if len(shape) != 2 or shape[1] != width or not 1 <= shape[0] <= MAX_OBSERVATIONS:
        raise _wrong(f"{INPUT}.shape: {shape[:8]} is not allowed; allowed: [n, {width}], n from 1 to {MAX_OBSERVATIONS}")
    size = _binary_size(tensor)
    if size is not None:
        expected = 4 * shape[0] * width
        if not isinstance(tensor.data, msgspec.UnsetType) or size != expected or len(tail) != expected:
            raise _wrong(
                f"{INPUT}: {len(tail)} bytes behind the JSON, binary_data_size {size}; allowed: {expected} for shape {shape},"
                " and no data"
            )
        return np.frombuffer(tail, dtype="<f4").astype(np.float64).reshape(shape)
    if isinstance(tensor.data, msgspec.UnsetType):
        raise _wrong(f"{INPUT}.data: is missing; allowed: {shape[0] * width} numbers")
    if tail:
        raise _wrong(f"body: {len(tail)} bytes behind the JSON belong to no tensor; allowed: none")
    return _numbers(tensor.data, shape)


def _binary_size(tensor: _Tensor) -> int | None:
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
        raise _wrong(f"{INPUT}.parameters.binary_data_size: {str(size)[:_SHOWN_CHARACTERS]} is not allowed; allowed: bytes")
    return size


def _numbers(data: msgspec.Raw, shape: list[int]) -> NDArray[np.float64]:
    try:
        flat = _FLAT.decode(data)
    except msgspec.MsgspecError:
        try:
            nested = _NESTED.decode(data)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise _wrong(
                f"{INPUT}.data: {str(error)[:80].replace('`', '')}; allowed: finite numbers, flat or row by row"
            ) from None
        if len(nested) != shape[0] or any(len(row) != shape[1] for row in nested):
            raise _wrong(
                f"{INPUT}.data: {len(nested)} rows do not fill shape {shape}; allowed: {shape[0]} rows of {shape[1]}"
            ) from None
        return np.array(nested, dtype=np.float64)
    if len(flat) != shape[0] * shape[1]:
        raise _wrong(f"{INPUT}.data: {len(flat)} numbers do not fill shape {shape}; allowed: {shape[0] * shape[1]}")
    return np.array(flat, dtype=np.float64).reshape(shape)


def _within_bounds(
    served: ServedPolicy, rows: NDArray[np.float64], *, clip: bool
) -> tuple[NDArray[np.float64], list[Clipped] | None]:
    fields, num_masked = served.spec.observation_fields, served.spec.num_masked
    if num_masked and not (rows[:, -num_masked:] > 0.5).any(axis=1).all():
        row = int(np.argmin((rows[:, -num_masked:] > 0.5).any(axis=1)))
        raise _wrong(f"{INPUT}[{row}]: no action is valid, its last {num_masked} numbers are 0; allowed: at least one of 1")
    low, high = served.bounds
    # Written so that NaN is outside. The numbers are FP32: a bound may be missed by its rounding.
    outside = ~((rows >= low) & (rows <= high))
    if not outside.any():
        return rows, [[] for _ in rows] if clip else None
    rounded = rows.astype(np.float32)
    outside &= ~((rounded >= low.astype(np.float32)) & (rounded <= high.astype(np.float32)))
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


def _wanted_outputs(served: ServedPolicy, request: _Infer) -> dict[str, bool]:
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
