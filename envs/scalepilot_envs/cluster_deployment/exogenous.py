"""What the world does to a deployment whatever the policy does: load, noise and failures, drawn for whole episodes at once."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.cluster_deployment.params import POD_LOAD_REQUESTS, ClusterDeploymentParams
from scalepilot_envs.streams import Streams

Array = NDArray[np.float64]
WeekendDay = Literal[0, 1, 2, "random"]

# What is kept of a step: one word of four numbers of 16 bits, and one of a spike's requests (float64).
_WORDS, _SPIKE = 2, 1
_NOISE, _CPU, _MEMORY, _FAILED = range(4)
_NUM_LEVELS = 1 << 16
_HALF = _NUM_LEVELS / 2

KINDS: Final = ("load_noise", "spikes", "day", "phase", "cpu_noise", "memory_noise", "failures")
DAY_STEPS, DAY_FACTORS, DAY_SHARES = 1440, (1.0, 0.4, 0.3), (5 / 7, 1 / 7, 1 / 7)
MEAN_LOAD_REQUESTS, LEAST_LOAD_REQUESTS, LOAD_SWING = 500.0, 50.0, 0.3
SPIKE_RISE_STEPS, SPIKE_LEAST_STEPS, SPIKE_MOST_STEPS = 5, 10, 29
SPIKE_LOW, SPIKE_HIGH = 0.5, 4.0
_LEAST_LOAD = np.array(LEAST_LOAD_REQUESTS)
# Uniform numbers of one spike: when it begins, how long it lasts, how high it rises.
_SPIKE_NUMBERS = 3
_BLOCK_BYTES, _MOST_EPISODES, _ROWS_TOGETHER = 32 * 2**20, 16, 16


@dataclass(frozen=True)
class Event:
    """A window in which the load is multiplied.

    Attributes:
        start_step: first step of the episode it covers.
        steps: how many.
        factor: of the daily load (spikes and noise come on top).
    """

    start_step: int
    steps: int
    factor: float

    def __post_init__(self) -> None:
        if self.start_step < 0 or self.steps < 1 or not (np.isfinite(self.factor) and self.factor >= 0):
            raise ValueError(
                f"events: {(self.start_step, self.steps, self.factor)} is not allowed;"
                " allowed: (start_step from 0, steps from 1, finite factor from 0)"
            )


def events_of(events: Sequence[Event | Sequence[float]]) -> tuple[Event, ...]:
    """Events from plain triples.

    Raises:
        ValueError: not (start_step, steps, factor).
    """
    found = []
    for event in events:
        if isinstance(event, Event):
            found.append(event)
            continue
        if len(tuple(event)) != 3 or any(int(value) != value for value in tuple(event)[:2]):
            raise ValueError(f"events: {event!r} is not allowed; allowed: (start_step, steps, factor)")
        start_step, steps, factor = event
        found.append(Event(int(start_step), int(steps), float(factor)))
    return tuple(found)


class Given(NamedTuple):
    """What the world does in a step, each (n,).

    Attributes:
        load: requests.
        cpu_noise: share.
        memory_noise: bytes.
        succeeds: 1 where a scaling request does, 0 where it fails.
    """

    load: Array
    cpu_noise: Array
    memory_noise: Array
    succeeds: Array


class Exogenous:
    """Load, noise and failures of every step; step 0 is the start of an episode.

    Each environment and kind of randomness has one stream, of which every episode takes the same number of draws whenever it
    ends, so episode e of seed s is the same under any policy, in any batch. Environments draw several episodes ahead, and
    together where they can: a call of a generator costs more than the numbers it returns. For the same reason noise is kept as
    16 bits a number, which are made into requests, shares and bytes in the step that needs them.

    Args:
        params: how noisy the world is.
        num_envs: environments.
        episode_steps: steps of an episode.
        weekend_day: 0 a weekday, 1 and 2 the quieter days of a weekend; "random" draws a day of the week each episode.
        random_phase: draw the time of day at which an episode starts; otherwise the daily sine starts at 0.
        events: windows in which the load is multiplied.
    """

    def __init__(
        self,
        params: ClusterDeploymentParams,
        num_envs: int,
        episode_steps: int,
        weekend_day: WeekendDay = 0,
        random_phase: bool = False,
        events: Sequence[Event] = (),
    ) -> None:
        if weekend_day not in (0, 1, 2, "random") or not isinstance(weekend_day, int | str) or isinstance(weekend_day, bool):
            raise ValueError(f"weekend_day: {weekend_day!r} is not allowed; allowed: 0, 1, 2, 'random'")
        self.params, self.num_envs, self.episode_steps = params, num_envs, episode_steps
        self.weekend_day, self.random_phase = weekend_day, random_phase
        steps = np.arange(DAY_STEPS + episode_steps + 1)
        self._daily = MEAN_LOAD_REQUESTS * (1 + LOAD_SWING * np.sin(2 * np.pi * steps / DAY_STEPS))
        self._event_factor = np.ones(episode_steps + 1)
        for event in events:
            self._event_factor[event.start_step : event.start_step + event.steps] *= event.factor
        day_factor = 1.0 if weekend_day == "random" else DAY_FACTORS[weekend_day]
        self._day_factor = np.full(num_envs, day_factor)
        self._phase = np.zeros(num_envs, dtype=np.int64)
        self._usual_load = self._daily[: episode_steps + 1] * day_factor * self._event_factor
        self._load_noise = normal_quantiles() * params.load_noise_requests
        self._noise_scale = np.array([[params.cpu_noise_share], [params.memory_noise_bytes]]) / _HALF
        self._noise_offset = self._noise_scale * (0.5 - _HALF)
        self._streams = Streams(KINDS)
        # Two halves of equally many episodes: one is run while the other waits to be drawn anew.
        rows = episode_steps + 1
        self._half = int(np.clip(_BLOCK_BYTES // (num_envs * rows * _WORDS * 8), 1, _MOST_EPISODES))
        self._drawn = np.zeros((num_envs, 2 * self._half, rows, _WORDS))
        self._drawn_days, self._drawn_phases = np.zeros((2, num_envs, 2 * self._half))
        self._num_drawn = np.zeros(num_envs, dtype=np.int64)
        self._episode = np.full(num_envs, -1)
        self._first_row = np.zeros(num_envs, dtype=np.int64)
        self._injected = np.zeros(num_envs, dtype=np.bool_)
        self._inputs: dict[str, Array] = {}

    def seed(self, seeds: Sequence[int | None]) -> None:
        """New streams for environment i from `seeds[i]`, and nothing drawn from them yet; None keeps its own."""
        self._streams.seed(seeds)
        for i, seed in enumerate(seeds):
            if seed is not None:
                self._episode[i], self._num_drawn[i] = -1, 0

    def next_episodes(self, rows: NDArray[np.int64]) -> None:
        """Move environments `rows` on to their next episode."""
        self._injected[rows] = False
        episode = self._episode[rows] + 1
        self._episode[rows] = episode
        if (episode >= self._num_drawn[rows]).any():
            # Whoever has a half to spare draws now: calls for one environment alone would cost most of the time.
            self._draw(np.flatnonzero((self._num_drawn - self._episode <= self._half) & (self._episode >= 0)))
        slot = episode % (2 * self._half)
        self._first_row[rows] = (rows * (2 * self._half) + slot) * (self.episode_steps + 1)
        if self.random_phase:
            self._phase[rows] = np.floor(self._drawn_phases[rows, slot] * DAY_STEPS)
        if self.weekend_day == "random":
            day = np.searchsorted(np.cumsum(DAY_SHARES[:-1]), self._drawn_days[rows, slot], side="right")
            self._day_factor[rows] = np.array(DAY_FACTORS)[day]

    def inject(self, rows: NDArray[np.int64], inputs: Mapping[str, Array]) -> None:
        """Run given inputs in environments `rows`.

        Args:
            rows: environments.
            inputs: loads (num_envs, episode_steps + 1), cpu_noise, memory_noise and failed (num_envs, episode_steps).
        """
        self._injected[rows] = True
        for name, values in inputs.items():
            self._inputs.setdefault(name, np.zeros_like(values))[rows] = values[rows]

    def first_load(self, rows: NDArray[np.int64]) -> Array:
        """(len(rows),) requests of step 0."""
        words = self._drawn.reshape(-1, _WORDS).take(self._first_row[rows], axis=0)
        load = self._load(words, np.zeros(len(rows), dtype=np.int64), rows)
        given = self._injected[rows]
        if given.any():
            load[given] = self._inputs["loads"][rows[given], 0]
        return load

    def at(self, step_index: NDArray[np.int64]) -> Given:
        """What happens in steps `step_index` (num_envs,), from 1."""
        words = self._drawn.reshape(-1, _WORDS).take(self._first_row + step_index, axis=0)
        bits = words.view(np.uint16)
        load = self._load(words, step_index, None)
        noise = bits[:, _CPU : _MEMORY + 1].T.astype(np.float64, order="C")
        noise *= self._noise_scale
        noise += self._noise_offset
        succeeds: Array = np.subtract(1.0, bits[:, _FAILED], dtype=np.float64)
        if self._injected.any():
            i = np.flatnonzero(self._injected)
            step = step_index[i]
            load[i] = self._inputs["loads"][i, step]
            noise[0, i], noise[1, i] = self._inputs["cpu_noise"][i, step - 1], self._inputs["memory_noise"][i, step - 1]
            succeeds[i] = 1.0 - self._inputs["failed"][i, step - 1]
        return Given(load, noise[0], noise[1], succeeds)

    def _load(self, words: Array, step_index: NDArray[np.int64], rows: NDArray[np.int64] | None) -> Array:
        """Requests of a step: a daily sine, spikes and noise, at least 50."""
        if self.random_phase or self.weekend_day == "random":
            phase, day_factor = (a if rows is None else a[rows] for a in (self._phase, self._day_factor))
            load = self._daily.take(step_index + phase)
            load *= day_factor
            load *= self._event_factor.take(step_index)
        else:
            load = self._usual_load.take(step_index)
        load += words[:, _SPIKE]
        load += self._load_noise.take(words.view(np.uint16)[:, _NOISE])
        np.maximum(load, _LEAST_LOAD, out=load)
        return load

    def _draw(self, rows: NDArray[np.int64]) -> None:
        """Draw a half of episodes for each of `rows`, a few environments at a time: arrays that fit the cache."""
        for at in range(0, len(rows), _ROWS_TOGETHER):
            some = rows[at : at + _ROWS_TOGETHER]
            first = self._num_drawn[some] // self._half % 2 * self._half
            slots = first[:, None] + np.arange(self._half)
            self._drawn[some[:, None], slots] = self._random_words(some)
            for kind, drawn in (("phase", self._drawn_phases), ("day", self._drawn_days)):
                if self.random_phase if kind == "phase" else self.weekend_day == "random":
                    drawn[some[:, None], slots] = [self._streams.of(kind, i).random(self._half) for i in some.tolist()]
        self._num_drawn[rows] += self._half

    def _random_words(self, rows: NDArray[np.int64]) -> Array:
        """(rows, episodes, episode_steps + 1, _WORDS) of new episodes."""
        steps, half, of = self.episode_steps + 1, self._half, self._streams.of
        # Whole 64-bit draws an episode, so that an episode's draws do not depend on how many are drawn together.
        quarters, halves = -(-steps // 4), -(-steps // 2)
        noise = np.empty((3, len(rows), half * quarters), dtype=np.uint64)
        failures = np.empty((len(rows), half * halves), dtype=np.uint64)
        spikes = np.empty((len(rows), half, (steps - 1) // SPIKE_LEAST_STEPS + 1, _SPIKE_NUMBERS))
        for at, i in enumerate(rows.tolist()):
            for kind, drawn in zip(("load_noise", "cpu_noise", "memory_noise"), noise, strict=True):
                drawn[at] = of(kind, i).bit_generator.random_raw(half * quarters)
            failures[at] = of("failures", i).bit_generator.random_raw(half * halves)
            of("spikes", i).random(out=spikes[at])
        words = np.empty((len(rows), half, steps, _WORDS))
        bits = words.view(np.uint16)
        bits_of_kind = noise.view(np.uint16).reshape(3, len(rows), half, 4 * quarters)[..., :steps]
        for place, kind_bits in zip((_NOISE, _CPU, _MEMORY), bits_of_kind, strict=True):
            bits[..., place] = kind_bits
        uniform = failures.view(np.uint32).reshape(len(rows), half, 2 * halves)[..., :steps]
        bits[..., _FAILED] = uniform < self.params.failure_probability * 2.0**32
        words[..., _SPIKE] = spike_heights(spikes, self.params.spike_probability, self.episode_steps)
        return words


@functools.cache
def normal_quantiles() -> Array:
    """(65536,) equally likely values of a standard normal distribution: a number of 16 bits looks its own up."""
    normal = NormalDist()
    upper = [normal.inv_cdf(0.5 + (i + 0.5) / _NUM_LEVELS) for i in range(_NUM_LEVELS // 2)]
    return np.array([-value for value in reversed(upper)] + upper)


def spike_heights(numbers: Array, probability: float, episode_steps: int) -> Array:
    """Requests that spikes add to each step.

    Args:
        numbers: (…, most spikes, 3) uniform in [0, 1): the wait for a spike, its length and its height.
        probability: that one begins in a step without one.
        episode_steps: steps of an episode.

    Returns:
        (…, episode_steps + 1) requests.
    """
    heights = np.zeros((*numbers.shape[:-2], episode_steps + 1))
    if probability == 0:
        return heights
    wait_number, length_number, height_number = np.moveaxis(numbers, -1, 0)
    # Geometric waits by inversion; one longer than an episode is as good as any other.
    with np.errstate(divide="ignore"):
        waits = np.floor(np.log1p(-wait_number) / np.log1p(-probability))
    waits = np.minimum(waits, episode_steps + 1).astype(np.int64)
    lengths = SPIKE_LEAST_STEPS + np.floor(length_number * (SPIKE_MOST_STEPS - SPIKE_LEAST_STEPS + 1)).astype(np.int64)
    starts = np.cumsum(waits + lengths, axis=-1) - lengths
    within = starts <= episode_steps
    row = np.nonzero(within.reshape(-1, within.shape[-1]))[0][:, None]
    age = np.arange(SPIKE_MOST_STEPS)
    step = starts[within][:, None] + age
    height = POD_LOAD_REQUESTS * (SPIKE_LOW + (SPIKE_HIGH - SPIKE_LOW) * height_number[within])[:, None]
    rise = np.minimum(1.0, (age + 1) / SPIKE_RISE_STEPS)
    shown = (age < lengths[within][:, None]) & (step <= episode_steps)
    flat = heights.reshape(-1, episode_steps + 1)
    flat[np.broadcast_to(row, step.shape)[shown], step[shown]] = (height * rise)[shown]
    return heights
