"""A Gaussian policy that is told what its episode shall cost."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from safer_offline.policies.actors import ActionBox, Actor
from safer_offline.policies.gaussian import GaussianPolicy
from safer_offline.policies.layers import Standardizer


class CostConditionedPolicy(Actor):
    """pi(a | s, c): the cost c of the whole episode is one more input.

    Args:
        observation_size: Size of an observation.
        box: Action bounds.
        hidden_sizes: Hidden layers.

    Attributes:
        network: The policy over inputs (s, c), raw, shape (B, ds + 1).
        target_cost: The cost that it is told when it acts, shape (1,).
    """

    targets: ClassVar[tuple[str, ...]] = ("target_cost",)
    target_cost: Tensor

    def __init__(
        self, observation_size: int, box: ActionBox, *, hidden_sizes: Sequence[int]
    ) -> None:
        super().__init__(observation_size, box, hidden_sizes=hidden_sizes)
        self.network = GaussianPolicy(
            observation_size + 1, copy.deepcopy(box), hidden_sizes=hidden_sizes
        )
        self.register_buffer("target_cost", torch.zeros(1))

    def fit_costs(self, costs: Standardizer) -> None:
        """Standardise the network's inputs: by `observations`, which is fitted, and by `costs`."""
        for name in ("mean", "std"):
            parts = [getattr(self.observations, name), getattr(costs, name)]
            getattr(self.network.observations, name).copy_(torch.cat(parts))

    @property
    def told(self) -> Tensor:
        """What it is told when it acts, shape (1,)."""
        return self.target_cost

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation at raw (B, ds) observations and `target_cost`."""
        told = self.told.expand(len(observations), 1)
        mean, std = self.network(torch.cat([observations, told], dim=1))
        return mean, std
