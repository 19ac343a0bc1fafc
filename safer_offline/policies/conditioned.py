"""Gaussian policies that are told something: the first, what its episode shall cost."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from safer_offline.policies.actors import ActionBox, Actor
from safer_offline.policies.gaussian import GaussianPolicy
from safer_offline.policies.layers import Standardizer


class ToldPolicy(Actor):
    """pi(a | s, t): what it is told, t, are further inputs, one for each of `targets`.

    Args:
        observation_size: Size of an observation.
        box: Action bounds.
        hidden_sizes: Hidden layers.

    Attributes:
        network: The policy over inputs (s, t), raw, shape (B, ds + len(targets)).
    """

    def __init__(
        self, observation_size: int, box: ActionBox, *, hidden_sizes: Sequence[int]
    ) -> None:
        super().__init__(observation_size, box, hidden_sizes=hidden_sizes)
        self.network = GaussianPolicy(
            observation_size + len(self.targets), copy.deepcopy(box), hidden_sizes=hidden_sizes
        )
        for name in self.targets:
            self.register_buffer(name, torch.zeros(1))

    def standardize_told(self, told: Standardizer) -> None:
        """Standardise the network's inputs: by `observations`, which is fitted, and by `told`."""
        size = len(self.targets)
        for name in ("mean", "std"):
            inputs = getattr(self.network.observations, name)
            inputs[:-size].copy_(getattr(self.observations, name))
            inputs[-size:].copy_(getattr(told, name))

    def usually_told(self, target: str) -> tuple[float, float]:
        """Mean and standard deviation of what it was told while it learned, of one target."""
        inputs, number = self.network.observations, self.targets.index(target)
        told = number - len(self.targets)
        return float(inputs.mean[told]), float(inputs.std[told])

    @property
    def told(self) -> Tensor:
        """What it is told when it acts, shape (len(targets),)."""
        return torch.cat([getattr(self, name) for name in self.targets])

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (B, da), at raw (B, ds) observations, as it is told."""
        return self.when_told(observations, self.told.expand(len(observations), -1))

    def when_told(self, observations: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """The same, told something else in each row, (B, len(targets))."""
        mean, std = self.network(torch.cat([observations, told], dim=1))
        return mean, std


class CostConditionedPolicy(ToldPolicy):
    """pi(a | s, c): the cost c of the whole episode is one more input.

    Attributes:
        target_cost: The cost that it is told when it acts, shape (1,).
    """

    targets: ClassVar[tuple[str, ...]] = ("target_cost",)
    target_cost: Tensor
