"""Whom attacks meet while a policy learns, and what they may ask."""

from __future__ import annotations

from torch import Tensor

from safer_offline.learners.robust import ActorTarget
from safer_offline.policies.critics import CriticEnsemble
from safer_offline.policies.gaussian import GaussianPolicy


class Victim(ActorTarget):
    """A policy that learns, with its critics.

    Args:
        network: The policy.
        reward_critic: Value of actions.
        cost_critic: Cost of actions.
    """

    def __init__(
        self, network: GaussianPolicy, reward_critic: CriticEnsemble, cost_critic: CriticEnsemble
    ) -> None:
        super().__init__(network)
        self._reward_critic, self._cost_critic = reward_critic, cost_critic

    def q_reward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `AttackTarget`."""
        return self._reward_critic.mean(observations, actions)

    def q_cost(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `AttackTarget`."""
        return self._cost_critic.mean(observations, actions)
