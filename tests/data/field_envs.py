"""Small environments in the shapes that people report about."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Base(gym.Env):
    length = 40

    def __init__(self, **kw):
        self.kw = kw

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.x = int(self.np_random.integers(0, 3))
        return self.obs(), {}

    def obs(self):
        o = np.zeros(3, np.float32)
        o[self.x] = 1
        return o

    def step(self, a):
        r = self.reward(a)
        self.t += 1
        self.x = int(self.np_random.integers(0, 3))
        return self.obs(), r, False, self.t >= self.length, {}


class DiscreteStart(Base):
    """Actions −1, 0, 1 (Discrete(3, start=-1)); x − 1 is right. Anything else raises."""

    observation_space = spaces.Box(0, 1, (3,), np.float32)
    action_space = spaces.Discrete(3, start=-1)

    def reward(self, a):
        if not self.action_space.contains(np.int64(a)):
            raise AssertionError(f"action {a} is outside {self.action_space}")
        return 1.0 if int(a) == self.x - 1 else 0.0


class Flaky(Base):
    """A backend that drops out now and then: 2 % of steps raise. An episode has 40 steps of reward 1: no return above 40."""

    observation_space = spaces.Box(0, 1, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def reward(self, a):
        if self.np_random.random() < 0.02:
            raise ConnectionError("simulator gone")
        return 1.0


class DictObs(Base):
    observation_space = spaces.Dict(
        {"action_mask": spaces.Box(0, 1, (3,), np.int8), "observations": spaces.Box(0, 1, (3,), np.float32)}
    )
    action_space = spaces.Discrete(3)

    def obs(self):
        return {"action_mask": np.ones(3, np.int8), "observations": Base.obs(self)}

    def reward(self, a):
        return 1.0


class MultiAct(Base):
    observation_space = spaces.Box(0, 1, (3,), np.float32)
    action_space = spaces.MultiDiscrete([3, 2])

    def reward(self, a):
        return 1.0


class TwoDim(Base):
    observation_space = spaces.Box(0, 1, (3, 1), np.float32)
    action_space = spaces.Discrete(3)

    def obs(self):
        return Base.obs(self)[:, None]

    def reward(self, a):
        return 1.0


class Masked(Base):
    """Says which actions are valid, in the three usual places; an invalid one raises."""

    observation_space = spaces.Box(0, 1, (3,), np.float32)
    action_space = spaces.Discrete(4)

    def mask(self):
        return np.array([True, True, True, self.x == 0])

    def action_masks(self):
        return self.mask()

    def reset(self, **kw):
        o, _ = super().reset(**kw)
        return o, {"action_mask": self.mask()}

    def step(self, a):
        if not self.mask()[int(a)]:
            raise ValueError(f"invalid action {a}")
        o, r, te, tr, _ = super().step(a)
        return o, r, te, tr, {"action_mask": self.mask()}

    def reward(self, a):
        return 1.0 if int(a) == self.x else 0.0


class BigReward(Base):
    observation_space = spaces.Box(0, 1, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def reward(self, a):
        return -1e6 + (5e4 if int(a) == self.x else 0.0)


class NanReward(Base):
    observation_space = spaces.Box(0, 1, (3,), np.float32)
    action_space = spaces.Discrete(3)
    count = 0

    def reward(self, a):
        NanReward.count += 1
        return float("nan") if NanReward.count % 1500 == 0 else (1.0 if int(a) == self.x else 0.0)


class OutOfBox(Base):
    """The declared bounds are too narrow: after 30 steps load shows up to 3."""

    observation_space = spaces.Box(0, 1, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def obs(self):
        return Base.obs(self) * (3 if self.t > 25 else 1)

    def reward(self, a):
        return 1.0 if int(a) == self.x else 0.0


for c in (DiscreteStart, Flaky, DictObs, MultiAct, TwoDim, Masked, BigReward, NanReward, OutOfBox):
    gym.register(f"{c.__name__}-v0", entry_point=f"field_envs:{c.__name__}")
