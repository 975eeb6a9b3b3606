"""torch → one ONNX file with the weights inside, nothing of this machine in it, same weights same bytes."""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scalepilot.errors import RunError
from scalepilot.policy import Decision, NetworkPolicy, PolicySpec, State
from scalepilot.policy.decoder import MoveDecoder
from scalepilot.policy.masks import INVALID_SCORE
from scalepilot.policy.onnx_metadata import model_metadata, with_metadata

OPSET = 18
_MAX_SCORE_ERROR = 1e-3
_MAX_TRACED = 8
_VERSION_DIGITS = 12
_traced_before: dict[tuple[bytes, tuple[int, ...], str], torch.onnx.ONNXProgram] = {}


class TorchPolicy:
    """A network still in training, behind the `Policy` protocol: greedy, for validation and parity.

    Args:
        spec: the description it will be exported with.
        network: raw observation → scores; put in evaluation mode.
    """

    def __init__(self, spec: PolicySpec, network: torch.nn.Module) -> None:
        self.spec = spec
        self.network = network.eval()
        self._decoder = MoveDecoder(spec)

    def act(
        self,
        observation: NDArray[Any],
        state: State | None = None,
        *,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> tuple[Decision, State | None]:
        """The greedy action; see `Policy.act`."""
        with torch.inference_mode():
            batch = np.ascontiguousarray(observation, dtype=self.spec.observation_dtype)
            scores = self.network(torch.from_numpy(batch)).numpy()
        return self._decoder.decision(observation, scores), None


def export_onnx(network: torch.nn.Module, shape: Sequence[int], dtype: str = "float32") -> bytes:
    """Export a network from raw observations (n, *shape) to scores.

    Args:
        network: on any device; it is copied.
        shape: of one observation.
        dtype: of the observation: float32 or uint8.

    Returns:
        The file's bytes: weights inside, metadata stripped, any batch size.
    """
    import onnx

    network = copy.deepcopy(network).cpu().eval()
    buffer = io.BytesIO()
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch's own exporter warns about its own dependencies.
            warnings.simplefilter("ignore")
            program = torch.onnx.ONNXProgram(_traced(network, tuple(shape), dtype).model.clone(), None)
            known = program.model.graph.initializers
            program.apply_weights({name: value for name, value in network.state_dict().items() if name in known})
            program.optimize()
            program.save(buffer, external_data=False)  # type: ignore[arg-type]
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    model = onnx.load_model_from_string(buffer.getvalue())
    _strip(model)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def _traced(network: torch.nn.Module, shape: tuple[int, ...], dtype: str) -> torch.onnx.ONNXProgram:
    """The network's graph before any weight is folded into it; kept, as tracing takes seconds and every run exports twice."""
    structure = _structure(network)
    program = _traced_before.get((structure, shape, dtype)) if structure else None
    if program is None:
        program = torch.onnx.export(
            network,
            (torch.ones((2, *shape), dtype=getattr(torch, dtype)),),
            dynamo=True,
            input_names=["observation"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=2**20)},),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
            optimize=False,
        )
        assert program is not None
        if len(_traced_before) >= _MAX_TRACED:
            _traced_before.clear()
        if structure:
            _traced_before[structure, shape, dtype] = program
    return program


def _structure(network: torch.nn.Module) -> bytes | None:
    """All of a network that its graph depends on: everything but the values of its weights; None where that cannot be told."""
    weights = network.state_dict().keys()
    constants = {name: value.numpy().tobytes() for name, value in network.named_buffers() if name not in weights}
    try:
        return pickle.dumps((copy.deepcopy(network).to("meta"), constants))
    except (AttributeError, TypeError, pickle.PicklingError):
        return None


def _strip(model: Any) -> None:
    """Remove what names this machine, its paths and its stack traces."""
    for owner in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        if hasattr(owner, "metadata_props"):
            del owner.metadata_props[:]
        owner.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    del model.functions[:]


def _said(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores without what stands for invalid actions, whose size is that of none."""
    return np.where(scores == np.float32(INVALID_SCORE), np.float32(0.0), scores)


def exported_policy(spec: PolicySpec, network: torch.nn.Module, observations: NDArray[Any]) -> NetworkPolicy:
    """Export, load and hold the loaded policy to the network's own greedy actions.

    Args:
        spec: description.
        network: raw observation → scores.
        observations: (n, *shape) real observations to compare on.

    Raises:
        RunError: the exported file decides otherwise than the network.
    """
    model = export_onnx(network, spec.observation_shape, spec.observation_dtype)
    # A run's version holds the time; the same weights must give the same bytes.
    contents = replace(spec, version=hashlib.sha256(model).hexdigest()[:_VERSION_DIGITS])
    policy = NetworkPolicy(spec, with_metadata(model, model_metadata(contents)))
    native, _ = TorchPolicy(spec, copy.deepcopy(network).cpu()).act(observations)
    exported, _ = policy.act(observations)
    ours, theirs = (d.action if d.scores is None else _said(d.scores) for d in (native, exported))
    assert ours is not None
    assert theirs is not None
    if not np.isfinite(ours).all():
        raise RunError("export: the network gives scores that are not finite; training has diverged (a smaller ppo.lr may help)")
    # Continuous actions are compared as shares of their range.
    error = float((np.abs(ours - theirs) / np.array([c.high - c.low for c in spec.components] or 1.0)).max())
    # Q-values of a million are rounded in the first digit behind the point.
    allowed = _MAX_SCORE_ERROR * max(1.0, float(np.abs(ours).max()) * _MAX_SCORE_ERROR)
    differing = 0
    if native.scores is not None and exported.action is not None:
        # Where two actions score alike to within float error, either is the greedy one.
        ordered = np.sort(native.scores, axis=1)
        decided = ordered[:, -1] - ordered[:, -2] > allowed
        differing = int(((native.action != exported.action) & decided).sum())
    if differing or error > allowed:
        raise RunError(
            f"export: the ONNX file decides otherwise on {differing} of {len(observations)} observations"
            f" (largest difference of a score {error:.2g}, allowed {allowed:g})"
        )
    return policy
