"""Atari games of `ale_py`: its native batch for training, and one game that observes the same and can be looked at."""

from __future__ import annotations

import importlib.util
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.foreign import ForeignEntry

_NOOP, _FIRE = 0, 1
Frame = NDArray[np.uint8]


def register_atari() -> None:
    """Have gymnasium know the games.

    Raises:
        ValueError: `ale_py` is not installed.
    """
    if importlib.util.find_spec("ale_py") is None:
        raise ValueError("id: Atari games need ale_py: pip install 'scalepilot[atari]'")
    importlib.import_module("ale_py")


class AtariGame(gym.Env[Frame, np.int64]):
    """One game with the preprocessing that `ale_py.AtariVectorEnv` does in C++: same arguments, same observations.

    The observation holds the last `stack_num` frames, oldest first, each the larger of the last two screens, grey and
    area-averaged to `img_height` × `img_width`; frames before the first are black. `render` gives the screen in colour.

    Args:
        env_id: of the game.
        render_mode: None or rgb_array.
        frameskip: screens of a step.
        stack_num: frames of an observation.
        img_height: pixels.
        img_width: pixels.
        maxpool: take the larger of the last two screens, because many games draw some things every second screen only.
        noop_max: a new game does nothing for up to so many screens.
        use_fire_reset: a new game begins with FIRE where the game has it.
        reward_clipping: rewards are cut at ± 1.
        num_threads: of the batch; a single game needs none.
        **arguments: of the game itself, such as repeat_action_probability.
    """

    def __init__(
        self,
        env_id: str,
        render_mode: str | None = None,
        *,
        frameskip: int = 4,
        stack_num: int = 4,
        img_height: int = 84,
        img_width: int = 84,
        maxpool: bool = True,
        noop_max: int = 30,
        use_fire_reset: bool = True,
        reward_clipping: bool = True,
        num_threads: int = 0,
        **arguments: Any,
    ) -> None:
        self.game: Any = gym.make(env_id, frameskip=1, obs_type="grayscale", render_mode=render_mode, **arguments)
        self.render_mode, self.metadata = render_mode, self.game.metadata
        self.frameskip, self.noop_max = frameskip, noop_max
        self.maxpool, self.reward_clipping = maxpool, reward_clipping
        screens: Any = self.game.observation_space
        screen_height, screen_width = screens.shape
        self._rows, self._columns = _area_weights(screen_height, img_height), _area_weights(screen_width, img_width).T
        self._fires = use_fire_reset and "FIRE" in self.get_action_meanings()
        self._frames: Frame = np.zeros((stack_num, img_height, img_width), np.uint8)
        self.observation_space = gym.spaces.Box(0, 255, self._frames.shape, np.uint8)
        self.action_space = self.game.action_space

    def get_action_meanings(self) -> list[str]:
        """A word an action, such as "NOOP", "FIRE", "RIGHT"."""
        meanings: list[str] = self.game.get_wrapper_attr("get_action_meanings")()
        return meanings

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Begin a game."""
        super().reset(seed=seed)
        screen, info = self.game.reset(seed=seed)
        noops = int(self.np_random.integers(0, self.noop_max + 1)) if self.noop_max else 0
        for action in [_NOOP] * noops + [_FIRE] * self._fires:
            screen, _, terminated, truncated, info = self.game.step(action)
            if terminated or truncated:
                screen, info = self.game.reset()
        self._frames = np.zeros_like(self._frames)
        self._push(screen)
        return self._frames.copy(), info

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """`frameskip` screens with the same action."""
        reward, screens = 0.0, []
        terminated = truncated = False
        info: dict[str, Any] = {}
        for _ in range(self.frameskip):
            screen, more, terminated, truncated, info = self.game.step(action)
            screens.append(screen)
            reward += float(more)
            if terminated or truncated:
                break
        self._push(np.maximum(*screens[-2:]) if self.maxpool and len(screens) > 1 else screens[-1])
        return (
            self._frames.copy(),
            float(np.clip(reward, -1.0, 1.0)) if self.reward_clipping else reward,
            terminated,
            truncated,
            info,
        )

    def _push(self, screen: Frame) -> None:
        self._frames = np.roll(self._frames, -1, axis=0)
        self._frames[-1] = np.rint(self._rows @ screen @ self._columns).astype(np.uint8)

    def render(self) -> Any:
        """The screen, (210, 160, 3) uint8, where `render_mode` is rgb_array."""
        return self.game.render()

    def close(self) -> None:
        """End the game."""
        self.game.close()


def _area_weights(pixels: int, wanted: int) -> NDArray[np.float64]:
    """(wanted, pixels) shares in which each pixel counts for each wanted one, by the length they have in common."""
    edges = np.arange(wanted + 1) * (pixels / wanted)
    first, last = np.arange(pixels), np.arange(pixels) + 1.0
    common = np.minimum(edges[1:, None], last) - np.maximum(edges[:-1, None], first)
    shares: NDArray[np.float64] = common.clip(0.0) * (wanted / pixels)
    return shares


class AtariEntry(ForeignEntry):
    """How a game is made; its arguments are those of `ale_py.AtariVectorEnv`."""

    def bare(self, **arguments: Any) -> gym.Env[Any, Any]:
        """One game."""
        return AtariGame(self.env_id, **arguments)

    def image_axes(self, shape: tuple[int, ...]) -> tuple[str, ...]:
        """A stack of grey frames, oldest first."""
        return ("frame_stack", "height", "width")
