"""Which actions are valid: the last fields of an observation, one an action. An action that is not valid is never chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy.spec import PolicySpec

# In place of the score of an action that is not valid: finite, so that sums and gradients stay so, and chosen by nobody.
INVALID_SCORE = -1e9


def valid_actions(spec: PolicySpec, observation: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """What a policy looks at, and which actions (n, num_actions) are valid; None where nothing is said of them.

    A policy of before there were masks meets environments that show one: it sees its own fields and heeds the rest.
    """
    fields, actions = len(spec.observation_fields), len(spec.actions)
    if spec.num_masked:
        return observation, observation[:, -spec.num_masked :] > 0.5
    if actions and observation.ndim == 2 and spec.image is None and observation.shape[1] == fields + actions:
        return observation[:, :fields], observation[:, fields:] > 0.5
    return observation, None


def masked_scores(scores: NDArray[np.float32], valid: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Scores (n, num_actions) with those of invalid actions beyond choice."""
    return scores if valid is None else np.where(valid, scores, np.float32(INVALID_SCORE))
