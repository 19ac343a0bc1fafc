"""The package that our Bullet tasks come from: its environments, made repeatable, and what to do.

Also of `benchmarks/simulators.py`.
"""

import contextlib
import importlib
import math
import sys
from unittest import mock

import numpy as np

from safer_offline.registration import BULLET_STEP_LIMITS, bullet_id

WORLDS = {"Circle": {"name": "Octagon"}, "Run": {"name": "Plane200", "factor": 1}}

LAYOUTS = {
    bullet_id(robot, task): {
        "agent": {"Car": "RaceCar"}.get(robot, robot),
        "task": f"{task}Task",
        "obstacles": {},
        "world": WORLDS[task],
    }
    for robot, task in BULLET_STEP_LIMITS
}
"""What the original registers under each id."""


class Original:
    """A task of the original package, its episodes made repeatable."""

    def __init__(self, env_id):
        # It looks up C streams by the names of Python's, which pytest has replaced.
        with (
            contextlib.redirect_stdout(sys.__stdout__),
            contextlib.redirect_stderr(sys.__stderr__),
        ):
            builder = importlib.import_module("bullet_safety_gym.envs.builder")
            self.environment = builder.EnvironmentBuilder(**LAYOUTS[env_id])
        self.reset(0)  # stores the state that later resets restore

    def reset(self, seed):
        self.environment.agent.apply_action(np.zeros(self.environment.action_space.shape))
        self.environment.bc.stepSimulation()
        state = np.random.get_state()
        np.random.seed(seed)
        # NumPy's arctan2 rounds by processor; ours, and so here the original's, is the C library's.
        with mock.patch.object(np, "arctan2", math.atan2):
            observation, _ = self.environment.reset()
        np.random.set_state(state)
        return observation

    def step(self, action):
        observation, reward, terminated, _, info = self.environment.step(action)
        return observation, reward, info["cost"], terminated


def actions_of(episode, size, steps):
    """Random, wandering and constant actions in turn; some beyond the bounds, some of 32 bits."""
    generator = np.random.default_rng(episode)
    if episode % 3 == 0:
        actions = generator.uniform(-1.3, 1.3, (steps, size))
    elif episode % 3 == 1:
        actions = np.clip(np.cumsum(generator.normal(0, 0.2, (steps, size)), axis=0), -1, 1)
    else:
        actions = np.tile(generator.uniform(-1, 1, size), (steps, 1))
    return actions.astype(np.float32) if episode % 2 else actions
