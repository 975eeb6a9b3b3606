"""GridWorld-v0 in plain Python, one walker and one step at a time: what `env_step` is measured against.

Written from the prose of the environment; the product never imports it.
"""

from __future__ import annotations

SIZE, OBSTACLE, GOAL, LIMIT = 3, (1, 1), (2, 2), 100
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))


class GridWorld:
    """A single walker."""

    def reset(self) -> int:
        """Back to the corner."""
        self.position, self.step_index = (0, 0), 0
        return self.observation()

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, float]]:
        """Check the action and move; (observation, reward, terminated, truncated, info)."""
        if not 0 <= action < len(MOVES):
            raise ValueError(f"action: {action} is not allowed; allowed: 0 to {len(MOVES) - 1}")
        row, column = self.position
        down, right = MOVES[action]
        row, column = row + down, column + right
        self.step_index += 1
        if 0 <= row < SIZE and 0 <= column < SIZE and (row, column) != OBSTACLE:
            self.position = (row, column)
            reward = 100.0 if self.position == GOAL else -1.0
        else:
            reward = -10.0
        return self.observation(), reward, self.position == GOAL, self.step_index >= LIMIT, {}

    def observation(self) -> int:
        """The cell, row by row."""
        row, column = self.position
        return row * SIZE + column
