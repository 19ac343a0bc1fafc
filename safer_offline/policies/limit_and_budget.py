"""Several Gaussian policies, of which the limit and the attackers' budget say who acts."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from safer_offline.policies.actors import ActionBox, Actor
from safer_offline.policies.gaussian import GaussianPolicy
from safer_offline.policies.layers import Standardizer

ROUNDING = 1e-6
"""By so much a number that was written in float32 may be off."""


class LimitAndBudgetPolicy(Actor):
    """It is told what an episode may cost, and how much of the attackers' budget to reckon with.

    There is a network for each of several limits and shares of the budget. Who acts keeps at most
    the limit told, and reckons with at least the share told; where none does, the least limit and
    the largest share there are.

    Args:
        observation_size: Size of an observation.
        box: Action bounds.
        hidden_sizes: Hidden layers of each network.
        limits: Number of limits.
        shares: Number of shares.

    Attributes:
        experts: The policies: all limits of the first share, then those of the next.
        limits: Cost limits, the least first, shape (limits,).
        shares: Shares of `full_budget`, the least first, shape (shares,).
        full_budget: The largest budget that it learned to withstand, raw units, shape (ds,).
        target_cost: Largest cost of an episode, shape (1,).
        budget_share: Share of `full_budget` to reckon with, shape (1,).
    """

    targets: ClassVar[tuple[str, ...]] = ("target_cost", "budget_share")
    limits: Tensor
    shares: Tensor
    full_budget: Tensor
    target_cost: Tensor
    budget_share: Tensor

    def __init__(
        self,
        observation_size: int,
        box: ActionBox,
        *,
        hidden_sizes: Sequence[int],
        limits: int,
        shares: int,
    ) -> None:
        super().__init__(observation_size, box, hidden_sizes=hidden_sizes)
        self.experts = nn.ModuleList(
            GaussianPolicy(observation_size, copy.deepcopy(box), hidden_sizes=hidden_sizes)
            for _ in range(limits * shares)
        )
        self.register_buffer("limits", torch.zeros(limits))
        self.register_buffer("shares", torch.zeros(shares))
        self.register_buffer("full_budget", torch.zeros(observation_size))
        self.register_buffer("target_cost", torch.zeros(1))
        self.register_buffer("budget_share", torch.ones(1))

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Actor`."""
        return {"limits": len(self.limits), "shares": len(self.shares)}

    def standardize(self, scale: Standardizer) -> None:
        """Have all networks read observations by a fitted scale."""
        for one in (self, *self.experts):
            one.observations = copy.deepcopy(scale)

    def acting(self) -> GaussianPolicy:
        """Who acts, given what it is told."""
        allowed = int((self.limits <= self.target_cost + ROUNDING * self.limits).sum())
        short = int((self.shares < self.budget_share - ROUNDING).sum())
        row = min(short, len(self.shares) - 1)
        network = self.experts[row * len(self.limits) + max(allowed - 1, 0)]
        assert isinstance(network, GaussianPolicy)
        return network

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of who acts, each (B, da), at raw (B, ds) observations."""
        mean, std = self.acting()(observations)
        return mean, std

    def share_of(self, budget: Tensor) -> float:
        """Which multiple of `full_budget` contains a budget, raw units, shape (ds,)."""
        # 0 / 0 where nothing can be attacked.
        return float((budget / self.full_budget).nan_to_num(nan=0.0, posinf=torch.inf).max())
