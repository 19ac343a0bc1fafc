"""A Gaussian policy that is told what shall follow: reward and cost of a step a little later."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from safer_offline.policies.actors import ActionBox, Actor
from safer_offline.policies.gaussian import GaussianPolicy
from safer_offline.policies.layers import Standardizer


class ForetoldPolicy(Actor):
    """pi(a | s, r, c): mean reward r and cost c of a window of steps ahead are two more inputs.

    Args:
        observation_size: Size of an observation.
        box: Action bounds.
        hidden_sizes: Hidden layers.

    Attributes:
        network: The policy over inputs (s, r, c), raw, shape (B, ds + 2).
        reward_ahead: The reward that it is told when it acts, shape (1,).
        cost_ahead: The cost, shape (1,).
    """

    targets: ClassVar[tuple[str, ...]] = ("reward_ahead", "cost_ahead")
    reward_ahead: Tensor
    cost_ahead: Tensor

    def __init__(
        self, observation_size: int, box: ActionBox, *, hidden_sizes: Sequence[int]
    ) -> None:
        super().__init__(observation_size, box, hidden_sizes=hidden_sizes)
        self.network = GaussianPolicy(
            observation_size + 2, copy.deepcopy(box), hidden_sizes=hidden_sizes
        )
        self.register_buffer("reward_ahead", torch.zeros(1))
        self.register_buffer("cost_ahead", torch.zeros(1))

    def standardize(self, observations: Standardizer, ahead: Standardizer) -> None:
        """Have the network read observations by one fitted scale, and what it is told by another.

        Args:
            observations: For (B, ds).
            ahead: For (B, 2), reward and cost.
        """
        self.observations = observations
        for name in ("mean", "std"):
            inputs = getattr(self.network.observations, name)
            inputs[:-2].copy_(getattr(observations, name))
            inputs[-2:].copy_(getattr(ahead, name))

    @property
    def told(self) -> Tensor:
        """What it is told when it acts, shape (2,)."""
        return torch.cat([self.reward_ahead, self.cost_ahead])

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (B, da), at raw (B, ds) observations, as it is told."""
        return self.when_told(observations, self.told.expand(len(observations), 2))

    def when_told(self, observations: Tensor, ahead: Tensor) -> tuple[Tensor, Tensor]:
        """The same, told something else in each row, (B, 2)."""
        mean, std = self.network(torch.cat([observations, ahead], dim=1))
        return mean, std
