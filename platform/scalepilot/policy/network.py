"""Policies that are a network: one ONNX file from the raw observation to scores, run by onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ArtifactError
from scalepilot.policy.decoder import MoveDecoder
from scalepilot.policy.onnx_file import check_model_bytes
from scalepilot.policy.protocol import Decision, State
from scalepilot.policy.spec import PolicySpec

MODEL_FILE = "model.onnx"


class NetworkPolicy:
    """A network with an action table.

    Args:
        spec: its description; kind "network".
        model: the ONNX file's bytes.

    Raises:
        ArtifactError: the model does not load, or does not fit the description.
    """

    def __init__(self, spec: PolicySpec, model: bytes) -> None:
        import onnxruntime

        check_model_bytes(model)
        options = onnxruntime.SessionOptions()
        # One small matrix product: threads cost more than they bring, and several services share the cores.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - onnxruntime raises a dozen types of its own
            raise ArtifactError(f"{spec.name}: model.onnx cannot be loaded: {str(error).splitlines()[0][:200]}") from None
        self.spec = spec
        self.model = model
        self._check_shapes()
        self._decoder = MoveDecoder(spec)

    def _check_shapes(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        fields, actions = len(self.spec.observation_fields), len(self.spec.actions)
        if len(inputs) != 1 or len(inputs[0].shape) != 2 or inputs[0].shape[1] != fields:
            shape = [i.shape for i in inputs]
            raise ArtifactError(f"{self.spec.name}: model.onnx takes {shape}, policy.json has {fields} observation fields")
        if not outputs or len(outputs[0].shape) != 2 or outputs[0].shape[1] != actions:
            shape = [o.shape for o in outputs]
            raise ArtifactError(f"{self.spec.name}: model.onnx gives {shape}, policy.json has {actions} actions")
        self._input, self._output = inputs[0].name, outputs[0].name

    def scores(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """(n, num_actions) logits or Q-values for observations (n, num_fields)."""
        batch = np.ascontiguousarray(observation, dtype=np.float32)
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
        scores = self.scores(observation)
        if deterministic or self.spec.decision_rule == "argmax_q":
            return self._decoder.decision(observation, scores), None
        if rng is None:
            raise ValueError("rng: needed to sample an action")
        sampled = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
        return self._decoder.decision(observation, scores, sampled), None
