"""What tests of several modules share: a dataset that needs no simulator."""

import numpy as np
import pytest
import torch
from lanes import BORDER

from safer_offline.datasets import BehaviorPolicy, BoxSpace, Metadata, OfflineDataset
from safer_offline.learners import SAFERConfig

# Spinning threads on few cores are slower, and one thread makes sums independent of the machine.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_points():
    """Episodes of a point that runs along a lane; right of the border it is paid more, and costs.

    An observation is (x, y), an action (pull to the right, speed). Lanes at x from -0.6 to 0.6;
    `lanes` chooses among them. Noise stays small, so a lane left of the border costs nothing.
    """

    def make(episodes=60, length=20, lanes=(-0.6, -0.3, 0.0, 0.4, 0.6), seed=0):
        rng = np.random.default_rng(seed)
        paths, actions, rewards = [], [], []
        for episode in range(episodes):
            lane, speed = lanes[episode % len(lanes)], rng.uniform(0.2, 0.9)
            x, y = lane, rng.uniform(-0.5, 0.5)
            path, done = [(x, y)], []
            for _ in range(length):
                action = np.clip([lane - x, speed] + 0.05 * rng.standard_normal(2), -1, 1)
                x, y = x + 0.5 * action[0], y + 0.1 * action[1]
                path.append((x, y))
                done.append(action)
            paths.append(np.array(path, np.float32))
            actions.append(np.array(done, np.float32))
            rewards.append(actions[-1][:, 1] * (1 + paths[-1][1:, 0]))
        ends = np.arange(1, episodes * length + 1) % length == 0
        after = np.concatenate([path[1:] for path in paths])
        arrays = {
            "observations": np.concatenate([path[:-1] for path in paths]),
            "next_observations": after,
            "actions": np.concatenate(actions),
            "rewards": np.concatenate(rewards),
            "costs": (after[:, 0] > BORDER).astype(np.float32),
            "terminals": np.zeros(len(ends), np.bool_),
            "timeouts": ends,
            "infos/policy_id": np.repeat(np.arange(episodes) % len(lanes), length).astype(np.int16),
        }
        metadata = Metadata(
            observation_space=BoxSpace(low=(-100.0,) * 2, high=(100.0,) * 2),
            action_space=BoxSpace(low=(-1.0,) * 2, high=(1.0,) * 2),
            behavior_policies=tuple(
                BehaviorPolicy(name=f"lane {lane}", share=1 / len(lanes)) for lane in lanes
            ),
        )
        return OfflineDataset.from_arrays(arrays, metadata=metadata)

    return make


@pytest.fixture(scope="session")
def points(make_points):
    return make_points()


@pytest.fixture(scope="session")
def small_config():
    """Settings under which a step takes a millisecond or two."""
    return SAFERConfig(
        cost_limit=2.0,
        epsilon=0.1,
        hidden_sizes=(16, 16),
        batch_size=32,
        candidates=4,
        recovery_states=200,
        mixture_components=2,
        attack_steps=1,
        estimation_share=0.5,
        episode_share=0.2,
    )
