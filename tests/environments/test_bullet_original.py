"""Our Bullet tasks beside the package that they come from, step by step.

The original is stepped as it comes, but for what makes its episodes a function of their seeds: its
global generator is seeded before each reset, and the last motor command is taken back.
"""

import contextlib
import sys

import numpy as np
import pytest

from safer_offline.environments.bullet.simulated import SafetyEnvironment
from safer_offline.environments.tasks import BULLET_IDS

EPISODES = 20
STEPS = 100


class Original:
    """A task of the original package, its episodes made repeatable."""

    def __init__(self, env_id):
        # It looks up C streams by the names of Python's, which pytest has replaced.
        with (
            contextlib.redirect_stdout(sys.__stdout__),
            contextlib.redirect_stderr(sys.__stderr__),
        ):
            builder = pytest.importorskip("bullet_safety_gym.envs.builder")
            self.environment = builder.EnvironmentBuilder(**LAYOUTS[env_id])
        self.reset(0)

    def reset(self, seed):
        self.environment.agent.apply_action(np.zeros(self.environment.action_space.shape))
        self.environment.bc.stepSimulation()
        state = np.random.get_state()
        np.random.seed(seed)
        observation, _ = self.environment.reset()
        np.random.set_state(state)
        return observation

    def step(self, action):
        observation, reward, terminated, _, info = self.environment.step(action)
        return observation, reward, info["cost"], terminated


LAYOUTS = {
    env_id: {
        "agent": {"Car": "RaceCar"}.get(robot, robot),
        "task": f"{task}Task",
        "obstacles": {},
        "world": {"name": "Octagon"} if task == "Circle" else {"name": "Plane200", "factor": 1},
    }
    for env_id in BULLET_IDS
    for robot in ("Car", "Ball", "Drone", "Ant")
    for task in ("Circle", "Run")
    if env_id == f"Safety{robot}{task}-v0"
}


def actions_of(episode, size):
    """Random, wandering and constant actions in turn; some beyond the bounds, some of 32 bits."""
    generator = np.random.default_rng(episode)
    shape = (STEPS, size)
    if episode % 3 == 0:
        actions = generator.uniform(-1.3, 1.3, shape)
    elif episode % 3 == 1:
        actions = np.clip(np.cumsum(generator.normal(0, 0.2, shape), axis=0), -1, 1)
    else:
        actions = np.tile(generator.uniform(-1, 1, size), (STEPS, 1))
    return actions.astype(np.float32) if episode % 2 else actions


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("env_id", BULLET_IDS)
def test_every_number_of_every_step_is_that_of_the_original(env_id):
    original, ours = Original(env_id), SafetyEnvironment(env_id)
    for episode in range(EPISODES):
        seed = 1000003 * episode + 5
        np.testing.assert_array_equal(ours.reset(seed), original.reset(seed).astype(np.float32))
        for action in actions_of(episode, ours.action_space.shape[0]):
            observation, *numbers = original.step(action)
            step = ours.step(action)
            np.testing.assert_array_equal(step.observation, observation.astype(np.float32))
            assert [step.reward, step.cost, step.terminated] == numbers
            if step.terminated:
                break
    ours.close()
    original.environment.close()
