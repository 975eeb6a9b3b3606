"""The two endpoints that decide, and the shadows that decide the same again for the metrics alone."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.decide import oip
from scalepilot.serve.decide.decisions import Outcome, decide_rows
from scalepilot.serve.decide.strict import Decided, DecideRequest, answer, parse_request
from scalepilot.serve.decide.strict import decide as decide_strictly
from scalepilot.serve.http.endpoint import Call
from scalepilot.serve.http.logs import LOGGER
from scalepilot.serve.http.replies import JSON_TYPE, Reply

if TYPE_CHECKING:
    from scalepilot.serve.http.metrics import Metrics

_BINARY_TYPE = (b"content-type", b"application/octet-stream")
# Most shadow decisions that may wait; what comes beyond is not shadowed, so that a slow shadow slows nobody.
_MAX_SHADOWS = 64
_logger = logging.getLogger(LOGGER)


def decide(call: Call) -> bytes:
    """Answer named fields; the usual request on the short way."""
    served = call.served
    assert served is not None
    read = served.reader.read(call.body)
    if read is None:
        decided = decide_strictly(served, parse_request(call.body))
    else:
        rows, many = read
        if not many and call.shadow is None and served.quick is not None:
            one = served.quick.answer(rows[0])
            if one is not None:
                call.server.metrics.decided_one(served, one.move, "decide", one.desired_replicas)
                return msgspec.json.encode(one) + b"\n"
        decided = answer(served, rows, many)
    _count(call, decided)
    return msgspec.json.encode(decided.to_json()) + b"\n"


def infer(call: Call) -> Reply:
    """Answer an inference request of the Open Inference Protocol."""
    length = next((value for name, value in call.headers if name == oip.HEADER_LENGTH), None)
    inferred = oip.infer(call.policy, call.body, length)
    _count(call, inferred)
    if inferred.header_length is None:
        return 200, [JSON_TYPE], inferred.body
    return 200, [_BINARY_TYPE, (oip.HEADER_LENGTH, str(inferred.header_length).encode())], inferred.body


def _count(call: Call, decided: Decided | oip.Inferred) -> None:
    metrics, label = call.server.metrics, call.endpoint.label
    metrics.decided(call.policy, decided.outcome, len(decided.observation), label, decided.clipped)
    if call.shadow is not None:
        call.server.shadows.decide(call.shadow, call.policy, decided)


class Shadows:
    """Decisions made again, after the answer has gone out.

    Args:
        metrics: where agreement is counted.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics, self._waiting = metrics, 0

    def decide(self, shadow: ServedPolicy, served: ServedPolicy, decided: Decided | oip.Inferred) -> None:
        """Have a shadow decide what a policy decided."""
        if self._waiting >= _MAX_SHADOWS:
            self._count(shadow, served, "skipped", len(decided.observation))
        else:
            self._waiting += 1
            asyncio.get_running_loop().call_soon(self._decide, shadow, served, decided)

    def _decide(self, shadow: ServedPolicy, served: ServedPolicy, decided: Decided | oip.Inferred) -> None:
        self._waiting -= 1
        count = len(decided.observation)
        try:
            again = decide_rows(shadow, decided.observation)
        except Exception:  # a shadow may fail as it likes
            _logger.exception("shadow failed", extra={"event": "shadow_failed", "policy": shadow.reference})
            self._count(shadow, served, "failed", count)
            return
        same, difference = _agreement(decided.outcome, again)
        self._count(shadow, served, "same", same)
        self._count(shadow, served, "different", count - same)
        self._metrics.count("shadow_difference_replicas", (served.reference, shadow.reference), difference)

    def _count(self, shadow: ServedPolicy, served: ServedPolicy, agreement: str, times: int) -> None:
        self._metrics.count("shadow_decisions", (served.reference, shadow.reference, agreement), times)


def _agreement(outcome: Outcome, again: Outcome) -> tuple[int, float]:
    """How many decisions are the same, and the sum of how far the others are apart in replicas."""
    if outcome.desired_replicas is not None and again.desired_replicas is not None:
        apart = abs(outcome.desired_replicas - again.desired_replicas)
        return int((apart == 0).sum()), float(apart.sum())
    if outcome.action is None or again.action is None or outcome.action.shape != again.action.shape:
        return 0, 0.0
    same = outcome.action == again.action
    return int(same.reshape(len(same), -1).all(axis=1).sum()), 0.0


def decide_examples(call: Call) -> tuple[dict[str, Any], dict[str, Any]]:
    """For the document: what may be asked of a policy, and what it really answers."""
    example = call.policy.example
    (answer,) = decide_strictly(call.policy, DecideRequest([example], [None], many=False)).answers
    requests = {"one": {"summary": "One observation", "value": {"observation": example}}}
    if "state" in answer:
        again = {"observation": example, "state": answer["state"]}
        requests["next"] = {"summary": "The next observation, with the state of the last answer", "value": again}
    requests["list"] = {"summary": "A list: one answer each, in order", "value": {"observation": [example, example]}}
    answers = {
        "one": {"summary": "One answer", "value": answer},
        "list": {"summary": "Answers to a list", "value": [answer, answer]},
    }
    return {"examples": requests}, {"examples": answers}


def infer_examples(call: Call) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same of the first policy without memory, if there is one."""
    served = next((served for served in call.catalogue.defaults() if served.state_shapes is None), None)
    if served is None:
        return {}, {}
    row = list(served.example.values())
    request = {"id": "1", "inputs": [{"name": oip.INPUT, "shape": [1, len(row)], "datatype": "FP32", "data": row}]}
    return {"example": request}, {"example": json.loads(oip.infer(served, json.dumps(request).encode()).body)}
