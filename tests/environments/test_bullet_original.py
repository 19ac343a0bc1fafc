"""Our Bullet tasks beside the package that they come from, step by step.

The original is stepped as it comes, but for what makes its episodes a function of their seeds: its
global generator is seeded before each reset, and the last motor command is taken back.
"""

import importlib.util

import numpy as np
import pytest
from beside_original import Original, actions_of

from safer_offline.environments.bullet.simulated import SafetyEnvironment
from safer_offline.environments.tasks import BULLET_IDS

EPISODES = 20
STEPS = 100


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("env_id", BULLET_IDS)
def test_every_number_of_every_step_is_that_of_the_original(env_id):
    if importlib.util.find_spec("bullet_safety_gym") is None:
        pytest.skip("the original is not installed")
    original, ours = Original(env_id), SafetyEnvironment(env_id)
    for episode in range(EPISODES):
        seed = 1000003 * episode + 5
        np.testing.assert_array_equal(ours.reset(seed), original.reset(seed).astype(np.float32))
        for action in actions_of(episode, ours.action_space.shape[0], STEPS):
            observation, *numbers = original.step(action)
            step = ours.step(action)
            np.testing.assert_array_equal(step.observation, observation.astype(np.float32))
            assert [step.reward, step.cost, step.terminated] == numbers
            if step.terminated:
                break
    ours.close()
    original.environment.close()
