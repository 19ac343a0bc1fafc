"""Train a behaviour: one run of SAC that learns all trade-offs between return and cost at once.

Each episode draws a penalty k, the agent sees it as one more observation and gets reward - k cost.
So a single network ends up driving from reckless (k = 0) to timid. The learner is Stable-Baselines3
(`pip install "safer-offline[behaviors]"`); acting later needs NumPy only.

config        settings of a training
environment   a task that takes the penalty from the reward
training      `train_behavior`: from an environment to an actor file
"""

from __future__ import annotations

from safer_offline.datasets.behavior_training.config import BehaviorTrainingConfig
from safer_offline.datasets.behavior_training.training import train_behavior

__all__ = ["BehaviorTrainingConfig", "train_behavior"]
