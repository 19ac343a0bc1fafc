"""Attacks that use the critics: maximum cost and maximum reward.

Source: Liu et al., "On the Robustness of Safe Reinforcement Learning under Observational
Perturbations", ICLR 2023.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from safer_offline.attacks.base import AttackTarget, GradientAttack, Start


class CriticAttack(GradientAttack):
    """Maximises Q(s, mean(s_hat)): the critic judges at the true observation."""

    starts: ClassVar[tuple[Start, ...]] = ("random", "zero", "corner", "corner", "random")

    @abstractmethod
    def q_value(self, target: AttackTarget, observations: Tensor, actions: Tensor) -> Tensor:
        """The critic Q of (B, ds) and (B, da), shape (B,)."""

    def objective(self, target: AttackTarget, clean: Tensor) -> Callable[[Tensor], Tensor]:
        """See `GradientAttack`."""

        def value(perturbed: Tensor) -> Tensor:
            mean, _ = target.action_distribution(perturbed)
            return self.q_value(target, clean, mean)

        return value


class MaxCost(CriticAttack):
    """Leads the policy to the actions of the largest expected cost."""

    name: ClassVar[str] = "mc"
    critics: ClassVar[tuple[str, ...]] = ("cost",)

    def q_value(self, target: AttackTarget, observations: Tensor, actions: Tensor) -> Tensor:
        """See `CriticAttack`."""
        return target.q_cost(observations, actions)


class MaxReward(CriticAttack):
    """Tempts the policy with the largest expected return: stealthy, for reward often costs."""

    name: ClassVar[str] = "mr"
    critics: ClassVar[tuple[str, ...]] = ("reward",)

    def q_value(self, target: AttackTarget, observations: Tensor, actions: Tensor) -> Tensor:
        """See `CriticAttack`."""
        return target.q_reward(observations, actions)
