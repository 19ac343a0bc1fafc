"""Several Gaussian policies on one body, and which of them acts under a limit on the cost.

Source: Chemingui et al., "Constraint-Adaptive Policy Switching for Offline Safe Reinforcement
Learning", AAAI 2025.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from safer_offline.policies.actors import ActionBox, Actor
from safer_offline.policies.critics import CriticEnsemble
from safer_offline.policies.gaussian import MIN_STD
from safer_offline.policies.layers import Standardizer, mlp
from safer_offline.policies.squashed import LOG_STD_RANGE


class PolicyHeads(nn.Module):
    """K Gaussians over actions in half ranges: means behind a tanh, deviations the same everywhere.

    Args:
        observation_size: Size of an observation.
        action_size: Size of an action.
        heads: Their number K.
        hidden_sizes: Hidden layers, which they share.
    """

    def __init__(
        self, observation_size: int, action_size: int, *, heads: int, hidden_sizes: Sequence[int]
    ) -> None:
        super().__init__()
        self.observations = Standardizer(observation_size)
        self.network = mlp((observation_size, *hidden_sizes, heads * action_size))
        self.log_std = nn.Parameter(torch.zeros(heads, action_size))

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Means for raw (B, ds) observations, (B, K, da), and deviations, (K, da)."""
        means = torch.tanh(self.network(self.observations(observations)))
        return means.view(-1, *self.log_std.shape), self.log_std.clamp(*LOG_STD_RANGE).exp()


class SwitchingPolicy(Actor):
    """Takes, of its heads' actions with Qc(s, a) <= d, the one with the largest Q(s, a).

    If there is none, it takes the one with the least Qc. So no smaller limit ever gives an action
    of larger Qc. Gradients pass through the head that is chosen.

    Args:
        observation_size: Size of an observation.
        box: Action bounds.
        hidden_sizes: Hidden layers of the body.
        heads: Number of policies.
        critic_hidden_sizes: Hidden layers of the critics.
        critic_members: Networks in each critic; the least counts of reward, the largest of cost.

    Attributes:
        heads: The policies.
        reward_critic: Q.
        cost_critic: Qc.
        target_cost: The cost of an episode that it is told to keep when it acts, shape (1,).
        discounted_unit: d where that cost is 1, shape ().
    """

    targets: ClassVar[tuple[str, ...]] = ("target_cost",)
    target_cost: Tensor
    discounted_unit: Tensor

    def __init__(
        self,
        observation_size: int,
        box: ActionBox,
        *,
        hidden_sizes: Sequence[int],
        heads: int,
        critic_hidden_sizes: Sequence[int],
        critic_members: int,
    ) -> None:
        super().__init__(observation_size, box, hidden_sizes=hidden_sizes)
        self._settings = {
            "heads": heads,
            "critic_hidden_sizes": list(critic_hidden_sizes),
            "critic_members": critic_members,
        }
        action_size = box.centre.shape[0]
        self.heads = PolicyHeads(
            observation_size, action_size, heads=heads, hidden_sizes=hidden_sizes
        )
        self.reward_critic, self.cost_critic = (
            CriticEnsemble(
                observation_size,
                action_size,
                members=critic_members,
                hidden_sizes=critic_hidden_sizes,
            )
            for _ in range(2)
        )
        self.register_buffer("target_cost", torch.zeros(1))
        self.register_buffer("discounted_unit", torch.zeros(()))

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Actor`."""
        return self._settings

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the chosen head, each (B, da).

        The latter has the floor of `GaussianPolicy`.
        """
        means, std = self.heads(observations)
        actions = self.box.scale(means)
        chosen = self.choose(observations, actions)
        rows = torch.arange(len(chosen), device=chosen.device)
        return actions[rows, chosen], self.box.half_range * std.clamp_min(MIN_STD)[chosen]

    @torch.no_grad()
    def choose(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Which of (B, K, da) actions are taken at raw (B, ds) observations, (B,)."""
        count = actions.shape[1]
        asked = observations.repeat_interleave(count, dim=0), actions.flatten(0, 1)
        reward = self.reward_critic(*asked).amin(0).view(-1, count)
        cost = self.cost_critic(*asked).amax(0).view(-1, count)
        allowed = cost <= self.target_cost.clamp_min(0) * self.discounted_unit
        earning = reward.masked_fill(~allowed, -torch.inf).argmax(1)
        return torch.where(allowed.any(1), earning, cost.argmin(1))
