"""What algorithms on implicit Q-learning share: values of states as expectiles of those of actions.

Source: Kostrikov, Nair and Levine, "Offline Reinforcement Learning with Implicit Q-Learning", ICLR
2022. No action that the data do not have is ever asked about: with u = Q'(s, a) - V(s),

    V  minimises E |tau - 1[u < 0]| u^2,
    Q  minimises E (r + discount * V(s') - Q(s, a))^2,

so that for tau near 1 V is nearly the best that the data's actions at a state lead to. Of what
should be small, such as cost, u has the other sign and V is nearly the least ("reversed" expectile
regression). Policies are then fitted to the data's actions, each weighted by exp(beta u).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from safer_offline.datasets.dataset.access import Columns
from safer_offline.errors import UsageError
from safer_offline.learners.constrained import (
    ConstrainedConfig,
    ConstrainedLearner,
    adam,
    descend,
    require_positive,
    target_copy,
)
from safer_offline.policies.critics import CriticEnsemble, StateValue
from safer_offline.policies.layers import polyak_update


@dataclass(frozen=True, kw_only=True)
class ExpectileConfig(ConstrainedConfig):
    """Settings that all of them have.

    Attributes:
        expectile: Tau of reward: 0.5 values states by the data's mean action, near 1 by its best.
        cost_expectile: Tau of cost, likewise.
        reward_beta: Inverse temperature: how fast an action's weight grows with its advantage.
        cost_beta: The same of what it saves in cost.
        weight_cap: Largest weight of an action for its reward.
        cost_weight_cap: The same for its cost.
        value_rate: Learning rate of the values of states.
        target_rate: Share of the new weights that target critics take over in each update.
        actor_decay_steps: Steps over which the policy's learning rate falls to zero, as a cosine;
            none takes those of the training.
    """

    actor_rate: float = 3e-4
    critic_rate: float = 3e-4
    expectile: float = 0.7
    cost_expectile: float = 0.7
    reward_beta: float = 3.0
    cost_beta: float = 3.0
    weight_cap: float = 100.0
    cost_weight_cap: float = 100.0
    value_rate: float = 3e-4
    target_rate: float = 0.005
    actor_decay_steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "weight_cap", "cost_weight_cap", "value_rate", "target_rate")
        if self.actor_decay_steps is not None:
            require_positive(self, "actor_decay_steps")
        for name in ("reward_beta", "cost_beta"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise UsageError(f"{name} must be >= 0 and finite, but is {value}")
        for name in ("expectile", "cost_expectile"):
            if not 0 < (value := getattr(self, name)) < 1:
                raise UsageError(f"{name} must be between 0 and 1, but is {value}")
        if self.target_rate > 1:
            raise UsageError(f"target_rate must be at most 1, but is {self.target_rate}")


def expectile_loss(advantages: Tensor, *, expectile: float) -> Tensor:
    """|tau - 1[u < 0]| u^2 of (B,) advantages u, a mean."""
    return torch.where(advantages < 0, 1 - expectile, expectile).mul(advantages**2).mean()


def exponential_weights(advantages: Tensor, *, beta: float, cap: float) -> Tensor:
    """exp(beta u) of (B,) advantages u, at most `cap`; no gradient."""
    return (beta * advantages.detach()).exp().clamp(max=cap)


def cosine_rate(rate: float, *, step: int, decay_steps: int) -> float:
    """A learning rate on its way to zero, where it stays after `decay_steps`."""
    return rate * (1 + math.cos(math.pi * min(1.0, step / decay_steps))) / 2


class ImplicitValue(nn.Module):
    """Q(s, a) as a cautious ensemble, its target, and V(s), an expectile of it.

    Args:
        critic: Q.
        value: V, in the same unit as `critic.standardized`.
        less_is_better: Whether Q is a cost. Caution takes the largest of the members for it.
    """

    def __init__(
        self, critic: CriticEnsemble, value: StateValue, *, less_is_better: bool = False
    ) -> None:
        super().__init__()
        self.critic = critic
        self.target: CriticEnsemble = target_copy(critic)
        self.value = value
        self.less_is_better = less_is_better

    def judge(self, observations: Tensor, actions: Tensor) -> Tensor:
        """What the target critic, cautiously, thinks of (B, ds) and (B, da), (B,); no gradient."""
        with torch.no_grad():
            estimates = self.target.standardized(observations, actions)
            return estimates.amax(0) if self.less_is_better else estimates.amin(0)

    def of_states(self, observations: Tensor) -> Tensor:
        """V of (B, ds), (B,)."""
        values: Tensor = self.value(observations)[0]
        return values

    def advantages(self, batch: Columns) -> Tensor:
        """How much better than V the batch's actions are, (B,); gradients reach V alone."""
        difference = self.judge(batch["observations"], batch["actions"]) - self.of_states(
            batch["observations"]
        )
        return -difference if self.less_is_better else difference

    def critic_loss(self, batch: Columns, targets: Tensor) -> Tensor:
        """Mean squared error of all members against (B,) targets."""
        estimates = self.critic.standardized(batch["observations"], batch["actions"])
        return functional.mse_loss(estimates, targets.expand_as(estimates))


E = TypeVar("E", bound=ExpectileConfig)


class ExpectileLearner(ConstrainedLearner[E]):
    """Values of reward and of cost, and how they learn; a subclass fits a policy.

    Attributes:
        reward: Value of reward.
        cost: Value of cost, or of what the algorithm has in its place.
    """

    def build(self) -> None:
        """See `SimpleLearner`."""
        super().build()
        config = self.config
        self.reward = ImplicitValue(
            self.value_critic(unit=self.reward_unit()), self.state_value(members=1)
        )
        self.cost = ImplicitValue(
            self.value_critic(), self.state_value(members=1), less_is_better=True
        )
        self.value_optimizer = adam(self.reward.value, self.cost.value, rate=config.value_rate)
        self.critic_optimizer = adam(self.reward.critic, self.cost.critic, rate=config.critic_rate)

    def fit_values(self, advantages: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of V of `reward` and `cost`, whose (B,) advantages are given; its losses."""
        config = self.config
        losses = {
            "reward_value": expectile_loss(advantages["reward"], expectile=config.expectile),
            "cost_value": expectile_loss(advantages["cost"], expectile=config.cost_expectile),
        }
        descend(self.value_optimizer, losses["reward_value"] + losses["cost_value"])
        return losses

    def fit_critics(
        self, batch: Columns, *, reward_target: Tensor, cost_target: Tensor
    ) -> dict[str, Tensor]:
        """One step of both critics to (B,) targets; the target networks follow. Its losses."""
        losses = {
            "reward_critic": self.reward.critic_loss(batch, reward_target),
            "cost_critic": self.cost.critic_loss(batch, cost_target),
        }
        descend(self.critic_optimizer, losses["reward_critic"] + losses["cost_critic"])
        for one in (self.reward, self.cost):
            polyak_update(one.target, one.critic, self.config.target_rate)
        return losses

    def set_actor_rate(self, optimizer: torch.optim.Optimizer, *, step: int) -> None:
        """Lower the policy's learning rate to what it is at this step."""
        config = self.config
        rate = cosine_rate(
            config.actor_rate, step=step, decay_steps=config.actor_decay_steps or self.steps
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
