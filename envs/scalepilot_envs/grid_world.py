"""GridWorld-v0: 3 by 3 cells with an obstacle, the teaching example of tabular methods.

Observation Discrete(9): the cell, row by row.

| field | unit | range |
|---|---|---|
| cell | row · 3 + column | 0 to 8 |

    start 0   1   2
          3   #   5
          6   7   8 goal

Actions: Discrete(4): 0 up, 1 right, 2 down, 3 left. A move off the grid or into the obstacle leaves the position unchanged.
Reward: +100 on reaching the goal, −10 where the position did not change, −1 otherwise.
Start: cell 0. No chance anywhere: a seed changes nothing.
End: terminates at the goal; truncation after `episode_steps` (100).
Arguments: `params` (`GridWorldParams` or a mapping), `episode_steps`.
History: v0, the first version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.batch_env import BatchEnv, BatchStep, BatchVectorEnv, BoolArray, SingleEnv, entry_points
from scalepilot_envs.checks import check_count, check_number, check_options
from scalepilot_envs.description import Action, EnvDescription, ObservationField, params_from_mapping
from scalepilot_envs.drawing import BLUE, GREEN, GRID, INK, MUTED, Canvas
from scalepilot_envs.episodes import EpisodeClock
from scalepilot_envs.scaling import check_actions

ENV_ID = "scalepilot/GridWorld-v0"
EPISODE_STEPS = 100
SIZE = 3
NUM_CELLS, START, OBSTACLE, GOAL = SIZE * SIZE, 0, 4, 8
_ACTIONS = tuple(Action("plain", 0, label) for label in ("up", "right", "down", "left"))
_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))


@dataclass(frozen=True)
class GridWorldParams:
    """What the moves are worth.

    Attributes:
        goal_reward: for reaching the goal.
        blocked_penalty: for a move that the edge or the obstacle stops.
        step_penalty: for any other move.
    """

    goal_reward: float = 100.0
    blocked_penalty: float = 10.0
    step_penalty: float = 1.0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("goal_reward", "blocked_penalty", "step_penalty"):
            check_number(self, name)


def transitions(params: GridWorldParams) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The whole world as two tables.

    Returns:
        (9, 4) the next cell and (9, 4) the reward, by cell and action.
    """
    cells = np.empty((NUM_CELLS, len(_ACTIONS)), dtype=np.int64)
    for cell in range(NUM_CELLS):
        for action, (down, right) in enumerate(_MOVES):
            row, column = cell // SIZE + down, cell % SIZE + right
            there = row * SIZE + column
            inside = 0 <= row < SIZE and 0 <= column < SIZE
            cells[cell, action] = there if inside and there != OBSTACLE else cell
    blocked = cells == np.arange(NUM_CELLS)[:, None]
    rewards = np.where(blocked, -float(params.blocked_penalty), -float(params.step_penalty))
    return cells, np.where((cells == GOAL) & ~blocked, float(params.goal_reward), rewards)


class GridWorldBatch(BatchEnv):
    """`num_envs` walkers.

    Args:
        num_envs: walkers stepped together.
        params: rewards, or their mapping.
        episode_steps: steps until truncation.

    Attributes:
        cell: (num_envs,) where they are.

    Raises:
        ValueError: a parameter is unknown or not allowed.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        *,
        params: GridWorldParams | Mapping[str, Any] | None = None,
        episode_steps: int = EPISODE_STEPS,
    ) -> None:
        self.num_envs = check_count("num_envs", num_envs)
        self.episode_steps = check_count("episode_steps", episode_steps)
        self.params: GridWorldParams = params_from_mapping(GridWorldParams, params)
        self.fields = _FIELDS
        self.single_observation_space = gym.spaces.Discrete(NUM_CELLS)
        self.single_action_space = gym.spaces.Discrete(len(_ACTIONS))
        next_cell, reward = transitions(self.params)
        self._next_cell, self._reward_of = next_cell.ravel(), reward.ravel()
        self._clock = EpisodeClock(num_envs, episode_steps)
        self.cell = np.full(num_envs, START, dtype=np.int64)
        # As whole arrays: numpy is slower at turning a plain number into one than at a thousand products.
        self._num_actions, self._goal = np.full(num_envs, len(_ACTIONS)), np.full(num_envs, GOAL)
        self._reward = np.zeros(num_envs)

    def seed_streams(self, seeds: Sequence[int | None]) -> None:
        """Nothing is drawn."""

    def reset_batch(self, mask: BoolArray | None = None, options: dict[str, Any] | None = None) -> NDArray[np.int64]:
        """Back to the start where `mask` is true, everywhere if None; there are no options."""
        check_options(options, ())
        rows = np.arange(self.num_envs) if mask is None else mask.nonzero()[0]
        self.cell[rows] = START
        self._clock.reset(rows)
        return self.cell.copy()

    def step_batch(self, actions: NDArray[Any]) -> BatchStep:
        """Move.

        Args:
            actions: (num_envs,) integers 0 to 3.

        Raises:
            ValueError: another shape or dtype, or an index out of range.
        """
        index = self.cell * self._num_actions
        index += check_actions(actions, self.num_envs, len(_ACTIONS))
        self.cell, self._reward = self._next_cell.take(index), self._reward_of.take(index)
        # A copy: the caller may change what it was given.
        return BatchStep(self.cell.copy(), self._reward, self.cell == self._goal, self._clock.advance())

    def render_one(self, index: int, mode: str) -> str | NDArray[np.uint8]:
        """The grid: A is the walker, G the goal, # the obstacle."""
        cell, step = int(self.cell[index]), int(self._clock.step_index[index])
        reward = float(self._reward[index]) if step else 0.0
        heading = f"step {step} of {self.episode_steps}"
        if mode == "ansi":
            marks = {GOAL: "G", OBSTACLE: "#"} | {cell: "A"}
            rows = [" ".join(marks.get(row * SIZE + column, ".") for column in range(SIZE)) for row in range(SIZE)]
            return "\n".join([*rows, f"{heading}  cell {cell}  reward {reward:+g}"])
        return _picture(cell, heading, reward)


def _picture(cell: int, heading: str, reward: float) -> NDArray[np.uint8]:
    side, left, top = 110.0, 35.0, 50.0
    canvas = Canvas(400, 400)
    canvas.text((left, 26), f"GridWorld-v0 · {heading}", size=15)
    canvas.text((left + SIZE * side, 26), f"reward {reward:+g}", size=15, align="right")
    for at in range(NUM_CELLS):
        x, y = left + at % SIZE * side, top + at // SIZE * side
        colour = {OBSTACLE: INK, GOAL: GREEN}.get(at, GRID)
        canvas.bar((x + 3, y + 3, x + side - 3, y + side - 3), colour, radius=8)
        canvas.text((x + 14, y + 18), str(at), MUTED if colour == GRID else (255, 255, 255), size=12)
        word = {START: "start", OBSTACLE: "obstacle", GOAL: "goal"}.get(at, "")
        canvas.text((x + side / 2, y + side - 18), word, MUTED if colour == GRID else (255, 255, 255), align="centre")
    x, y = left + (cell % SIZE + 0.5) * side, top + (cell // SIZE + 0.5) * side - 4
    canvas.circle((x, y), 26, (255, 255, 255))
    canvas.circle((x, y), 23, BLUE)
    return canvas.array()


_FIELDS = (ObservationField("cell", "row · 3 + column", 0.0, NUM_CELLS - 1.0, "where the walker is, row by row"),)


def describe(params: GridWorldParams | Mapping[str, Any] | None = None) -> EnvDescription:
    """Field, actions, reward and parameters of GridWorld-v0.

    Raises:
        ValueError: a parameter is unknown or not allowed.
    """
    p: GridWorldParams = params_from_mapping(GridWorldParams, params)
    return EnvDescription(
        env_id=ENV_ID,
        params=p,
        fields=_FIELDS,
        actions=_ACTIONS,
        reward=(
            f"+{p.goal_reward:g} on reaching the goal, −{p.blocked_penalty:g} where the position did not change,"
            f" −{p.step_penalty:g} otherwise."
        ),
        end=f"Terminates at the goal; truncated after {EPISODE_STEPS} steps unless episode_steps says otherwise.",
        episode_steps=EPISODE_STEPS,
    )


class GridWorldVectorEnv(BatchVectorEnv[GridWorldBatch]):
    """Native vector environment of GridWorld-v0."""


class GridWorldEnv(SingleEnv[GridWorldBatch]):
    """GridWorld-v0 as a `gymnasium.Env`."""


make_env, make_vector_env = entry_points(GridWorldBatch, GridWorldEnv, GridWorldVectorEnv)
