"""Attacks that weigh cost against reward, and one that waits until it does most harm.

A policy that is paid for speed and costs where it is fast can be tempted into cost: `mr` alone then
harms more than `mc`. These attacks ask both critics, or one of them at the right time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from safer_offline.attacks.base import ActionAttack, AttackTarget, Start
from safer_offline.attacks.critic import CriticAttack, MaxCost
from safer_offline.attacks.selective import Discerning, Selective
from safer_offline.errors import UsageError

_LEAST_SCALE = 1e-6
"""Of a critic that says the same everywhere."""


class Mixed(CriticAttack):
    """Maximises a mixture of expected cost and expected return.

    Each is counted in its deviation over natural episodes, so that the share means the same in
    every task.

    Args:
        share: Of the cost; the rest is the return's.
        scales: Deviations of q_cost and q_reward. None until `fit` has found them.
        steps: See `GradientAttack`.
        restarts: See `GradientAttack`.
    """

    name: ClassVar[str] = "mix"
    critics: ClassVar[tuple[str, ...]] = ("cost", "reward")

    def __init__(
        self,
        *,
        share: float = 0.5,
        scales: tuple[float, ...] | None = None,
        steps: int = 20,
        restarts: int = 5,
    ) -> None:
        super().__init__(steps=steps, restarts=restarts)
        if not 0 <= share <= 1:
            raise UsageError(f"attack 'mix': share must be from 0 to 1, not {share}")
        if scales is not None and (len(scales) != 2 or min(scales) <= 0):
            raise UsageError(f"attack 'mix': scales are two positive numbers, not {scales}")
        self.share = share
        self.scales = scales

    @property
    def needs_fit(self) -> bool:
        """True as long as there are no scales."""
        return self.scales is None

    @torch.no_grad()
    def fit(self, target: AttackTarget, observations: Tensor) -> Mixed:
        """The same attack with the scales that these natural observations (M, ds) give."""
        mean, _ = target.action_distribution(observations)
        values = target.q_cost(observations, mean), target.q_reward(observations, mean)
        fitted = copy.copy(self)
        cost, reward = (max(value.std().item(), _LEAST_SCALE) for value in values)
        fitted.scales = (cost, reward)
        return fitted

    def q_value(self, target: AttackTarget, observations: Tensor, actions: Tensor) -> Tensor:
        """See `CriticAttack`.

        Raises:
            UsageError: If there are no scales yet.
        """
        if self.scales is None:
            raise UsageError("attack 'mix' has no scales yet: call fit, or construct it with")
        cost = target.q_cost(observations, actions) / self.scales[0]
        reward = target.q_reward(observations, actions) / self.scales[1]
        return self.share * cost + (1 - self.share) * reward


class Lure(Discerning, ActionAttack):
    """MR as long as little cost is expected, MC where much is: first tempt, then push.

    Args:
        threshold: Much is what q_cost(s, mean(s)) reaches this. None until `fit` has found the 90 %
            quantile over natural episodes of the same policy.
        steps: See `GradientAttack`.
        restarts: See `GradientAttack`.
    """

    name: ClassVar[str] = "lure"
    critics: ClassVar[tuple[str, ...]] = ("cost", "reward")
    starts: ClassVar[tuple[Start, ...]] = CriticAttack.starts

    def judge(self, target: AttackTarget, clean: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """See `ActionAttack`."""
        risky = self.chosen(target, clean)
        return lambda mean, _: torch.where(
            risky, target.q_cost(clean, mean), target.q_reward(clean, mean)
        )


class Timed(Selective, MaxCost):
    """MC at only a share of the steps: those where a small perturbation raises the cost most.

    An attacker who must not be noticed strikes seldom. Which steps are worth it says the gradient
    of q_cost(s, mean(s_hat)) at s_hat = s.

    Source: strategically timed attacks as in Lin et al., "Tactics of Adversarial Attack on Deep
    Reinforcement Learning Agents", IJCAI 2017; there a step is chosen by how much the policy
    prefers its action.

    Args:
        share: Of the steps of natural episodes at which it would strike.
        threshold: Strike where the gradient's largest effect (its sum of absolute values) is at
            least this. None until `fit` has found the quantile that leaves the share.
        steps: See `GradientAttack`.
        restarts: See `GradientAttack`.
    """

    name: ClassVar[str] = "timed"

    def __init__(
        self,
        *,
        share: float = 0.2,
        threshold: float | None = None,
        steps: int = 20,
        restarts: int = 5,
    ) -> None:
        super().__init__(threshold=threshold, steps=steps, restarts=restarts)
        if not 0 < share <= 1:
            raise UsageError(f"attack 'timed': share must be above 0 and at most 1, not {share}")
        self.share = share

    @property
    def quantile(self) -> float:  # type: ignore[override]
        """What leaves the share."""
        return 1 - self.share

    def score(self, target: AttackTarget, observations: Tensor) -> Tensor:
        """How much a perturbation of one in every coordinate would raise the cost at most, (B,)."""
        seen = observations.detach().clone().requires_grad_()
        with torch.enable_grad():
            mean, _ = target.action_distribution(seen)
            total = target.q_cost(observations.detach(), mean).sum()
        (gradient,) = torch.autograd.grad(total, seen)
        return gradient.abs().sum(dim=1)
