"""Policies that are a network: one ONNX file from the raw observation to scores or a continuous action, run by onnxruntime."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ArtifactError
from scalepilot.policy.decoder import MoveDecoder
from scalepilot.policy.masks import masked_scores, valid_actions
from scalepilot.policy.onnx_file import check_model_bytes
from scalepilot.policy.protocol import Decision, State
from scalepilot.policy.spec import PolicySpec

MODEL_FILE = "model.onnx"
_ONNX_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}


# Of all networks of a process, weights and everything they compute: a small file may ask for terabytes.
_MAX_BYTES = 2 << 30


@functools.cache
def _bounded_memory() -> bool:
    """Have onnxruntime take its memory from one place with an end, once a process; whether that was possible."""
    import onnxruntime

    try:
        # As large as asked for, chunk by chunk: doubling would reach the end with half of it unused.
        arena = onnxruntime.OrtArenaCfg({"max_mem": _MAX_BYTES, "arena_extend_strategy": 1})
        place = onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        )
        onnxruntime.create_and_register_allocator(place, arena)
    except Exception:  # noqa: BLE001 - onnxruntime raises a dozen types of its own; without the bound it works as before
        return False
    return True


class NetworkPolicy:
    """A network with an action table, or with the components of a continuous action, which it never samples.

    Args:
        spec: its description; kind "network".
        model: the ONNX file's bytes.

    Raises:
        ArtifactError: the model does not load, or does not fit the description.
    """

    def __init__(self, spec: PolicySpec, model: bytes) -> None:
        import onnxruntime

        check_model_bytes(model)
        # From 1.31 it would report on itself, and complain where it cannot keep an id for that.
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        # One small matrix product: threads cost more than they bring, and several services share the cores.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if _bounded_memory():
            options.add_session_config_entry("session.use_env_allocators", "1")
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - onnxruntime raises a dozen types of its own
            raise ArtifactError(f"{spec.name}: model.onnx cannot be loaded: {_first_line(error)}") from None
        self.spec = spec
        self.model = model
        self._check_shapes()
        self._decoder = MoveDecoder(spec)

    def _check_shapes(self) -> None:
        inputs, outputs, spec = self._session.get_inputs(), self._session.get_outputs(), self.spec
        if len(inputs) != 1 or tuple(inputs[0].shape[1:]) != spec.observation_shape:
            shown = f"{len(spec.observation_fields)} observation fields" if spec.image is None else f"images {spec.image.shape}"
            raise ArtifactError(f"{spec.name}: model.onnx takes {[i.shape for i in inputs]}, policy.json has {shown}")
        if inputs[0].type != _ONNX_TYPES[spec.observation_dtype]:
            raise ArtifactError(f"{spec.name}: model.onnx takes {inputs[0].type}, policy.json has {spec.observation_dtype}")
        if not outputs or len(outputs[0].shape) != 2 or outputs[0].shape[1] != spec.num_outputs:
            kind = "action components" if spec.components else "actions"
            gives = [o.shape for o in outputs]
            raise ArtifactError(f"{spec.name}: model.onnx gives {gives}, policy.json has {spec.num_outputs} {kind}")
        self._input, self._output = inputs[0].name, outputs[0].name

    def scores(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """(n, num_actions) logits or Q-values, or (n, k) continuous actions, for observations (n, *shape)."""
        batch = np.ascontiguousarray(observation, dtype=self.spec.observation_dtype)
        scores: NDArray[np.float32] = self._session.run([self._output], {self._input: batch})[0]
        return scores

    def act(
        self,
        observation: NDArray[Any],
        state: State | None = None,
        *,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> tuple[Decision, State | None]:
        """Decide; see `Policy.act`."""
        shown, valid = valid_actions(self.spec, observation)
        scores = masked_scores(self.scores(shown), valid)
        if deterministic or self.spec.decision_rule in ("argmax_q", "box"):
            return self._decoder.decision(observation, scores), None
        if rng is None:
            raise ValueError("rng: needed to sample an action")
        sampled = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
        return self._decoder.decision(observation, scores, sampled), None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
