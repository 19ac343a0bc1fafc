"""A well-behaved environment, and one with each fault that people's environments have."""

import itertools
import os
import random
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete


class Point(gymnasium.Env):
    """A point in the plane; right of the border every step costs."""

    observation_space = Box(-10.0, 10.0, (2,), np.float32)
    action_space = Box(-2.0, 2.0, (2,), np.float32)
    cost_key = "cost"
    steps = 30

    def __init__(self, speed=0.1, border=0.3):
        self.speed, self.border = speed, border

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        assert (np.abs(action) <= 2).all()
        self.t += 1
        self.x += self.speed * action  # in place: who keeps an observation must copy it
        return self.observe(), self.reward(), False, self.truncated(), self.info()

    def observe(self):
        return self.x

    def reward(self):
        return float(self.x[1])

    def truncated(self):
        return self.t >= self.steps

    def cost(self):
        return float(self.x[0] > self.border)

    def info(self):
        return {self.cost_key: self.cost(), "t": self.t}

    @property
    def max_episode_steps(self):
        return self.steps


def make_point(**kwargs):
    return gymnasium.wrappers.TimeLimit(Point(**kwargs), 20)


gymnasium.register("ToyPoint-v0", entry_point="toy_environments:Point", max_episode_steps=25)


# Faults of the interface


class OldStep(Point):
    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, truncated, info


class SixValues(Point):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, self.cost(), terminated, truncated, info


class OldReset(Point):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class ResetWithoutSeed(Point):
    def reset(self):
        return super().reset()


class Crash(Point):
    def step(self, action):
        if self.t == 3:
            raise RuntimeError("the arm is stuck")
        return super().step(action)


class InfoIsNone(Point):
    def info(self):
        return None


class NotAnEnvironment:
    pass


an_instance = Point()
a_number = 5


def returns_nothing():
    make_point()


def cannot_be_made():
    raise RuntimeError("no licence found")


# Faults of the spaces


class DictObservations(Point):
    observation_space = Dict({"x": Point.observation_space})

    def observe(self):
        return {"x": self.x}


class ImageObservations(Point):
    observation_space = Box(0, 255, (4, 4), np.uint8)

    def observe(self):
        return np.zeros((4, 4), np.uint8)


class DiscreteActions(Point):
    action_space = Discrete(3)

    def step(self, action):
        return super().step(np.float32([action - 1, 0]))


class UnboundedActions(Point):
    action_space = Box(-np.inf, np.inf, (2,), np.float32)

    def step(self, action):
        return super().step(np.clip(action, -2, 2))


# Faults of the numbers


class WrongShape(Point):
    def observe(self):
        return np.append(self.x, 1)


class WrongType(Point):
    def observe(self):
        return (100 * self.x).astype(int) // 100


class NanObservation(Point):
    def observe(self):
        return self.x if self.t < 4 else np.float32([1, np.nan])


class OutsideSpace(Point):
    def observe(self):
        return self.x + np.float32([0, 20])


class NanReward(Point):
    def reward(self):
        return float("nan")


class OtherKey(Point):
    cost_key = "constraint_cost"


class NoCost(Point):
    def info(self):
        return {"t": self.t}


class CostSometimes(Point):
    def info(self):
        return {} if self.t % 3 else super().info()


class CostIsText(Point):
    def cost(self):
        return "high"


class CostIsArray(Point):
    def cost(self):
        return np.array([0.0, 1.0])


class NegativeCost(Point):
    def cost(self):
        return -super().cost()


class NanCost(Point):
    def cost(self):
        return float("nan")


class ZeroCost(Point):
    def cost(self):
        return 0.0


class CumulativeCost(Point):
    def reset(self, **kwargs):
        self.total = 0.0
        return super().reset(**kwargs)

    def cost(self):
        self.total += super().cost()
        return self.total


# Faults of the episodes


class Endless(Point):
    steps = 10**9

    def observe(self):
        return np.clip(self.x, -10, 10)

    @property
    def max_episode_steps(self):
        return None


class SilentLimit(Point):
    @property
    def max_episode_steps(self):
        return None


class TerminatesToo(Point):
    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, truncated, truncated, info


class OneStep(Point):
    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, not truncated, False, info


# Faults of reproducibility


class IgnoresSeed(Point):
    def reset(self, *, seed=None, options=None):
        return super().reset()


class GlobalNoise(Point):
    def reward(self):
        return random.random()


class Remembers(Point):
    episodes = 0

    def reset(self, **kwargs):
        _, info = super().reset(**kwargs)
        self.episodes += 1
        self.x += 0.01 * self.episodes
        return self.observe(), info


class CountsInstances(Point):
    instances: ClassVar = itertools.count()

    def __init__(self):
        super().__init__()
        self.mine = next(self.instances)

    def reward(self):
        return super().reward() + self.mine


class DependsOnProcess(Point):
    def reward(self):
        return float(os.getpid())


class OnlyInOneProcess(Point):
    def __init__(self):
        super().__init__()
        owner = os.environ.setdefault("TOY_OWNER", str(os.getpid()))
        if owner != str(os.getpid()):
            raise RuntimeError("the port is taken")


# Faults of manners


class Prints(Point):
    def step(self, action):
        print("step", self.t)  # noqa: T201
        return super().step(action)


class OpensWindow(Point):
    render_mode = "human"
