"""What stands between a policy and its service in an episode: late targets, blurred and missing measurements, stuck replicas.

Everything is drawn when an episode begins, each kind from a stream of its own, and never depends on what is done.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.measurement import NOISE_KINDS, OPTIONAL_FIELDS, Blur, drawn_noise
from scalepilot_envs.autoscale.own_or_drawn import OwnOrDrawn
from scalepilot_envs.autoscale.params import AutoscaleParams, Randomisation
from scalepilot_envs.streams import Streams

Array = NDArray[np.float64]
_LIVE_KINDS = ("actuation_lag", "measurement_phase", "field_dropout", "rate_dropout", "stuck")
ALL_STREAM_KINDS = ("measurement", *_LIVE_KINDS)


class Interval(NamedTuple):
    """What disturbs one interval.

    Attributes:
        blur: of what is measured in it; None for none.
        stuck_chance: (num_envs,) in [0, 1), decides which of its orders are stuck; None where none is.
    """

    blur: Blur | None = None
    stuck_chance: Array | None = None


UNDISTURBED = Interval()


class Disturbances:
    """Those of the running episodes of `num_envs` services.

    Args:
        params: the service; its own lag holds unless randomisation draws another.
        randomisation: what to draw.
        num_envs: services.
        episode_steps: most steps of an episode.

    Attributes:
        longest_lag_steps: most steps by which a target may be late.
        lag_steps: (num_envs,) whole steps by which targets are late.
        phase: (num_envs,) share of an interval by which measurements are behind; None where they never are.
        stuck_share: (num_envs,) probability that a replica ordered never serves; None where every one does.
        service: dispersion of the arrivals and readiness probes.
    """

    def __init__(self, params: AutoscaleParams, randomisation: Randomisation, num_envs: int, episode_steps: int) -> None:
        r, own_lag = randomisation, params.actuation_lag_steps
        self._randomisation, self._own_lag = r, own_lag
        self.longest_lag_steps = max(own_lag, *(r.actuation_lag_steps or (0,)))
        self.lag_steps = np.full(num_envs, own_lag)
        self.phase = np.zeros(num_envs) if r.measurement_phase[1] else None
        self.stuck_share = np.zeros(num_envs) if r.stuck_share[1] else None
        # Factors of each interval, the one before the first step included.
        self.noise = np.ones((episode_steps + 1, NOISE_KINDS, num_envs)) if r.measurement_noise[1] else None
        self._missing = np.zeros((episode_steps, OPTIONAL_FIELDS, num_envs), dtype=np.bool_) if r.field_dropout[1] else None
        self._repeated = np.zeros((episode_steps, num_envs), dtype=np.bool_) if r.rate_dropout[1] else None
        self._chance = np.zeros((episode_steps, num_envs)) if r.stuck_share[1] else None
        self._blurs = not (self.noise is None and self._missing is None and self._repeated is None)
        self.service = OwnOrDrawn(params, r, num_envs)
        self._columns = np.arange(num_envs)

    @property
    def stream_kinds(self) -> tuple[str, ...]:
        """What streams the draws need; a kind keeps its place, and with it its draws, when others are asked for."""
        live = self.phase, self.stuck_share, self._missing, self._repeated, self._randomisation.actuation_lag_steps
        return ("measurement",) if all(x is None for x in live) else ALL_STREAM_KINDS

    def of(self, columns: NDArray[np.intp]) -> Disturbances:
        """Those of copies of services `columns` (n,), in the middle of their episodes; tables are shared."""
        copies = copy.copy(self)
        copies._columns = self._columns[columns]
        copies.lag_steps = self.lag_steps[columns]
        copies.service = self.service.of(columns)
        copies.phase, copies.stuck_share = (None if x is None else x[columns] for x in (self.phase, self.stuck_share))
        return copies

    def draw(self, index: int, streams: Streams) -> None:
        """Draw those of a new episode of one service."""
        r = self._randomisation
        self.service.draw(index, streams)
        if self.noise is not None:
            rng = streams.of("measurement", index)
            self.noise[:, :, index] = drawn_noise(len(self.noise), r.measurement_noise, rng)
        if r.actuation_lag_steps is not None:
            low, high = r.actuation_lag_steps
            self.lag_steps[index] = streams.of("actuation_lag", index).integers(low, high + 1)
        if self.phase is not None:
            self.phase[index] = streams.of("measurement_phase", index).uniform(*r.measurement_phase)
        if self._missing is not None:
            rng = streams.of("field_dropout", index)
            probability = rng.uniform(*r.field_dropout)
            self._missing[:, :, index] = rng.random(self._missing.shape[:2]) < probability
        if self._repeated is not None:
            rng = streams.of("rate_dropout", index)
            probability = rng.uniform(*r.rate_dropout)
            self._repeated[:, index] = rng.random(len(self._repeated)) < probability
        if self._chance is not None and self.stuck_share is not None:
            rng = streams.of("stuck", index)
            self.stuck_share[index] = rng.uniform(*r.stuck_share)
            self._chance[:, index] = rng.random(len(self._chance))

    def clear(self, mask: NDArray[np.bool_]) -> None:
        """Leave the episodes where `mask` is true undisturbed, but for the service's own lag."""
        self.lag_steps[mask] = self._own_lag
        self.service.clear(mask)
        if self.noise is not None:
            self.noise[:, :, mask] = 1.0
        for values in (self.phase, self.stuck_share, self._missing, self._repeated):
            if values is not None:
                values[..., mask] = 0

    def first(self) -> Interval:
        """Of the interval before the first step."""
        return UNDISTURBED if self.noise is None else Interval(Blur(noise=self.noise[0]))

    def at(self, step: NDArray[np.int64]) -> Interval:
        """Of the interval of a step, (num_envs,) indices from 0."""
        if not self._blurs and self._chance is None:
            return UNDISTURBED
        noise, missing, repeated, chance = (
            None if values is None else self._of(values, step + before)
            for values, before in ((self.noise, 1), (self._missing, 0), (self._repeated, 0), (self._chance, 0))
        )
        return Interval(Blur(noise, missing, repeated) if self._blurs else None, chance)

    def _of(self, values: NDArray[Any], step: NDArray[np.int64]) -> NDArray[Any]:
        """(…, num_envs) of (num_steps, …, num_envs), each service at a step of its own."""
        if (step == step[0]).all():
            return np.asarray(values[step[0]].take(self._columns, axis=-1))
        return np.asarray(values[step, ..., self._columns].T)
