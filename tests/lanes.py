"""The world of the dataset `points`: a point that runs along lanes, left of a border or over it."""

import numpy as np

BORDER = 0.5
"""Steps that end right of this cost 1."""


def lane_weights(dataset, weights):
    """Weight of each lane, by its position."""
    lanes = dataset.episodes["behavior"].str.removeprefix("lane ").astype(float)
    return {lane: float(weights[(lanes == lane).to_numpy()].sum()) for lane in sorted(set(lanes))}


def run_points(policy, *, starts, attack=0.0, steps=20, seed=0):
    """Mean return and cost of a policy that starts at x in the middle, attacked at random."""
    rng = np.random.default_rng(seed)
    position = np.stack([starts, np.zeros_like(starts)], 1)
    reward, cost = np.zeros(len(starts)), np.zeros(len(starts))
    for _ in range(steps):
        seen = position + attack * rng.uniform(-1, 1, position.shape)
        action = policy.predict(seen)
        position += action * [0.5, 0.1]
        reward += action[:, 1] * (1 + position[:, 0])
        cost += position[:, 0] > BORDER
    return reward.mean(), cost.mean()
