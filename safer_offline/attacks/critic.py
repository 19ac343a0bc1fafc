"""Attacks that use the critics: maximum cost, maximum and minimum reward.

Source: Liu et al., "On the Robustness of Safe Reinforcement Learning under Observational
Perturbations", ICLR 2023.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from safer_offline.attacks.base import ActionAttack, AttackTarget, Start
from safer_offline.attacks.budget import Box
from safer_offline.errors import UsageError


class CriticAttack(ActionAttack):
    """Maximises Q(s, mean(s_hat)): the critic judges at the true observation."""

    starts: ClassVar[tuple[Start, ...]] = ("random", "zero", "corner", "corner", "random")

    @abstractmethod
    def q_value(self, target: AttackTarget, observations: Tensor, actions: Tensor) -> Tensor:
        """The critic Q of (B, ds) and (B, da), shape (B,)."""

    def judge(self, target: AttackTarget, clean: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """See `ActionAttack`."""
        return lambda mean, _: self.q_value(target, clean, mean)


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


class MinReward(CriticAttack):
    """Leads the policy to the actions of the least expected return: sabotage rather than harm."""

    name: ClassVar[str] = "minr"
    critics: ClassVar[tuple[str, ...]] = ("reward",)

    def q_value(self, target: AttackTarget, observations: Tensor, actions: Tensor) -> Tensor:
        """See `CriticAttack`."""
        return -target.q_reward(observations, actions)


class CoupledMaxCost(MaxCost):
    """MC whose perturbation cannot jump: a sensor that drifts where it does most harm.

    |delta_t - delta_(t-1)| is at most `change` times the budget, in every coordinate and at every
    step; an episode begins at delta = 0. What filters or people would notice is thereby excluded.

    Source: temporally coupled perturbations as in Liang et al., "Game-Theoretic Robust
    Reinforcement Learning Handles Temporally-Coupled Perturbations", ICLR 2024.

    Args:
        change: Largest change from step to step, as a share of the budget.
        steps: See `GradientAttack`.
        restarts: See `GradientAttack`.
    """

    name: ClassVar[str] = "coupled"

    def __init__(self, *, change: float = 0.2, steps: int = 20, restarts: int = 5) -> None:
        super().__init__(steps=steps, restarts=restarts)
        if not change > 0:
            raise UsageError(f"attack 'coupled': change must be positive, not {change}")
        self.change = change

    def allowed(self, clean: Tensor, *, epsilon: Tensor, previous: Tensor | None) -> Box:
        """See `GradientAttack`."""
        before = clean if previous is None else clean + previous
        reachable = Box.around(before, self.change * epsilon)
        return super().allowed(clean, epsilon=epsilon, previous=previous).near(reachable)
