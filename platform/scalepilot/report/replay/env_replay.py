"""Policies side by side in any environment that draws itself: a copy each, the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import EnvironmentFailedError, InputError
from scalepilot.policy import Policy, describe_env, env_actions
from scalepilot.report.replay.autoscale_replay import Entry, Lane, reason
from scalepilot.report.replay.recording import MOST_FRAMES, MOST_STEPS
from scalepilot.simulate import as_rows
from scalepilot_envs.registration import find_env
from scalepilot_envs.restarting import CheckedEnv, StepError

Picture = NDArray[np.uint8]


class EnvReplay:
    """Every policy in its own copy of an environment, all with one seed.

    Args:
        entries: who flies.
        env_id: of the environment.
        arguments: what it is made with.
        seed: of the episode.
        most_steps: after so many it is cut.
        filmed: keep pictures: some hundred and fifty of each lane, however long the episode is.

    Raises:
        InputError: a planner, or pictures of an environment that draws none.
    """

    COLUMNS = ("reward", "return")

    def __init__(
        self,
        entries: Sequence[Entry],
        env_id: str,
        arguments: Mapping[str, Any],
        seed: int,
        most_steps: int = MOST_STEPS,
        *,
        filmed: bool = False,
    ) -> None:
        entry = find_env(env_id)
        self.title, self.num_steps = entry.env_id.rpartition("/")[2], most_steps
        self.lanes = [Lane(e.name, e.detail, {name: [] for name in self.COLUMNS}) for e in entries]
        self._actors: list[Policy] = []
        for e in entries:
            if not isinstance(e.actor, Policy):
                raise InputError(f"{e.name}: plans ahead on Autoscale-v0 only")
            self._actors.append(e.actor)
        self.render_mode = _render_mode(entry.maker(), arguments, pictures=filmed)
        if filmed and self.render_mode != "rgb_array":
            raise InputError(f"{entry.env_id}: draws no pictures; allowed without --gif, --mp4 and --html")
        mode = {} if self.render_mode is None else {"render_mode": self.render_mode}
        try:
            self._envs: list[Any] = [CheckedEnv(entry.maker()(**{**arguments, **mode}), entry.env_id) for _ in entries]
            self._observations = [np.asarray(env.reset(seed=seed)[0]) for env in self._envs]
        except StepError as error:
            raise EnvironmentFailedError(str(error)) from None
        self._states: list[Any] = [None] * len(entries)
        self._draws = [np.random.default_rng(seed) for _ in entries]
        spec = self._actors[0].spec
        self.fields = spec.observation_fields
        self._actions = [a.label for a in (spec.actions or env_actions(describe_env(spec, spec.name)))]
        self._step, self._every = 0, 1
        self.frames: list[list[Picture]] = [[] for _ in entries]
        self.frame_steps: list[int] = []
        self._filmed = filmed
        self._film()

    @property
    def step_index(self) -> int:
        """Steps so far."""
        return self._step

    def views(self) -> list[str | Picture | NDArray[np.float64]]:
        """What each lane looks like now: text, a picture, or its observation where the environment draws nothing."""
        if self.render_mode is None:
            return [np.asarray(o, dtype=np.float64).ravel() for o in self._observations]
        return [str(env.render()) if self.render_mode == "ansi" else np.asarray(env.render()) for env in self._envs]

    def advance(self) -> bool:
        """Fly one step; False where every episode is over."""
        if self._step >= self.num_steps or all(lane.ended for lane in self.lanes):
            return False
        for i, lane in enumerate(self.lanes):
            if not lane.ended:
                self._advance(i, lane)
        self._step += 1
        if self._step % self._every == 0 or all(lane.ended for lane in self.lanes):
            self._film()
        return True

    def _advance(self, i: int, lane: Lane) -> None:
        """A step of one lane.

        Raises:
            EnvironmentFailedError: it fails.
        """
        try:
            self._stepped(i, lane)
        except StepError as error:
            raise EnvironmentFailedError(f"{error}; another --seed may do") from None

    def _stepped(self, i: int, lane: Lane) -> None:
        row = as_rows(self._observations[i][None])
        decision, self._states[i] = self._actors[i].act(row, self._states[i], rng=self._draws[i])
        lane.reasons.append(reason(self._actors[i], decision, row))
        if decision.action is None:
            assert decision.desired_replicas is not None
            target = float(decision.desired_replicas[0])
            lane.decisions.append(f"→ {target:.0f}")
            step = self._envs[i].step_targets(target)
        elif np.ndim(decision.action[0]):
            numbers = decision.action[0]
            lane.decisions.append(", ".join(f"{x:.3g}" for x in numbers))
            step = self._envs[i].step(numbers)
        else:
            index = int(decision.action[0])
            lane.decisions.append(self._actions[index])
            step = self._envs[i].step(index)
        observation, reward, terminated, truncated, _ = step
        self._observations[i] = np.asarray(observation)
        lane.columns["reward"].append(float(reward))
        lane.columns["return"].append(lane.newest("return") + float(reward))
        lane.ended = bool(terminated or truncated)

    def _film(self) -> None:
        if not self._filmed:
            return
        for env, frames in zip(self._envs, self.frames, strict=True):
            frames.append(np.asarray(env.render(), dtype=np.uint8))
        self.frame_steps.append(self._step)
        if len(self.frame_steps) > 2 * MOST_FRAMES:
            # How long it gets is not known beforehand: every other picture goes.
            self._every *= 2
            self.frame_steps = self.frame_steps[::2]
            self.frames = [frames[::2] for frames in self.frames]

    def summary(self) -> list[dict[str, Any]]:
        """The return so far, and whether the episode is over."""
        return [
            {
                "policy": lane.name,
                "episode_return": lane.newest("return"),
                "steps": len(lane.decisions),
                "ended": lane.ended,
            }
            for lane in self.lanes
        ]

    def close(self) -> None:
        """Let the environments go."""
        for env in self._envs:
            env.close()


def _render_mode(maker: Any, arguments: Mapping[str, Any], *, pictures: bool) -> str | None:
    """Text before pictures, unless pictures are wanted; None where the environment draws nothing here."""
    known = maker(**arguments).metadata.get("render_modes", [])
    for mode in ("rgb_array",) if pictures else ("ansi", "rgb_array"):
        if mode not in known:
            continue
        try:
            env = maker(**{**arguments, "render_mode": mode})
            env.reset(seed=0)
            drawn = env.render()
            env.close()
        except Exception:  # noqa: BLE001, S112 - a missing library: an environment may raise anything
            continue
        if isinstance(drawn, str) or (np.ndim(drawn) == 3 and np.asarray(drawn).dtype == np.uint8):
            return mode
    return None
