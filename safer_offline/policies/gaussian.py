"""The Gaussian policy network, and the likelihood by which such networks are fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from safer_offline.policies.actors import ActionBox, Actor
from safer_offline.policies.layers import mlp

__all__ = ["MIN_STD", "ActionBox", "GaussianPolicy", "gaussian_kl", "gaussian_nll"]

MIN_STD = 0.05
"""Smallest standard deviation, in units of half the action range."""


class GaussianPolicy(Actor):
    """pi(a|s) = N(mean(s), diag std(s)^2) with the mean squashed into the action bounds.

    Args:
        observation_size: Size of an observation.
        box: Action bounds.
        hidden_sizes: Hidden layers.
    """

    def __init__(
        self, observation_size: int, box: ActionBox, *, hidden_sizes: Sequence[int]
    ) -> None:
        super().__init__(observation_size, box, hidden_sizes=hidden_sizes)
        self.network = mlp((observation_size, *hidden_sizes, 2 * box.centre.shape[0]))

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation for raw (B, ds) observations, each (B, da)."""
        location, spread = self.heads(observations)
        mean = self.box.scale(torch.tanh(location))
        std = self.box.half_range * (MIN_STD + functional.softplus(spread - 1.0))
        return mean, std

    def heads(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """The two numbers that the network has for each action coordinate, each (B, da)."""
        location, spread = self.network(self.observations(observations)).chunk(2, dim=-1)
        return location, spread


def gaussian_nll(actions: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """-log N(a; mean, diag std^2) summed over the action's coordinates, shape (B,)."""
    return (0.5 * ((actions - mean) / std) ** 2 + std.log()).sum(-1) + 0.5 * actions.shape[
        -1
    ] * math.log(2 * math.pi)


def gaussian_kl(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """KL(N(mean, diag std^2) || N(other_mean, diag other_std^2)), shape (B,) for each (B, da)."""
    squares = std**2 + (mean - other_mean) ** 2
    return (torch.log(other_std / std) + squares / (2 * other_std**2) - 0.5).sum(dim=-1)
