"""CAPS: several policies on one body, and at each state the one that earns most within the limit.

Source: Chemingui et al., "Constraint-Adaptive Policy Switching for Offline Safe Reinforcement
Learning", AAAI 2025, on implicit Q-learning (see `expectile`). Values of reward and of cost are
learned apart from one another and from any limit. Head k of K is fitted to the data's actions with
weights

    exp(beta u) for k = 0,   exp(beta_c u_c) for k = K - 1,   and in between
    exp(beta u) + 2 k / (K - 1) exp(beta_c u_c),

u what an action earns more, and u_c what it costs less, than the state is worth. When it acts, the
policy takes, of the heads' actions with Qc(s, a) <= d, the one with the largest Q(s, a), or, if
there is none, the one with the least Qc. The limit d is told when it acts, and the same file acts
under any: `policy.aimed_at(target_cost=20)`.

The authors' code, whose hyperparameters these are, does three things that the paper does not, or
that a policy without memory cannot, beside those of `constrained`: the deviation of its actions is
in no optimiser and stays at 1 (`deviation="fixed"`); d is the cost that is left over, spread over
the steps that are left; and the learning rate falls over ten times as many steps as there are
(`actor_decay_steps=1000000`). Here d is spread over all steps, whatever was spent; to have it
follow, tell the policy at each step what is left, as the cost of a whole episode.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from safer_offline.datasets.dataset.access import Columns
from safer_offline.errors import UsageError
from safer_offline.learners.constrained import (
    adam,
    descend,
    detached,
)
from safer_offline.learners.expectile import (
    ExpectileConfig,
    ExpectileLearner,
    exponential_weights,
)
from safer_offline.learners.robust import Distribution, RobustConfig
from safer_offline.policies.gaussian import gaussian_nll
from safer_offline.policies.switching import PolicyHeads, SwitchingPolicy
from safer_offline.policies.trained import TrainedPolicy


@dataclass(frozen=True, kw_only=True)
class CAPSConfig(ExpectileConfig, RobustConfig):
    """Settings of CAPS on implicit Q-learning (Chemingui et al., AAAI 2025).

    Defaults are the authors', who train for 100,000 steps. The limit plays no part in training.

    Attributes:
        cost_limit: Cost of an episode that the policy is told to keep when it acts; it can be told
            another one later, `policy.aimed_at(target_cost=20)`.
        heads: Policies to switch between, 2 or more: for reward, for cost, and mixtures.
        deviation: Whether the deviation of each head's actions is `learned`, or, as in the
            authors' code, `fixed` at half the action range, which makes it squared errors.
    """

    hidden_sizes: tuple[int, ...] = (512, 512)
    critic_hidden_sizes: tuple[int, ...] = (512, 512)
    actor_decay_steps: int | None = 1_000_000
    heads: int = 2
    deviation: Literal["learned", "fixed"] = "learned"

    def __post_init__(self) -> None:
        super().__post_init__()
        RobustConfig.__post_init__(self)
        if self.heads < 2:
            raise UsageError(
                f"heads must be at least 2, for reward and for cost, but is {self.heads}"
            )


def mixtures(heads: int) -> Tensor:
    """How much the weights for reward and for cost count in each head's, (K, 2)."""
    shares = torch.stack([torch.ones(heads), 2 * torch.arange(heads) / (heads - 1)], dim=1)
    shares[0], shares[-1] = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    return shares


class CAPS(ExpectileLearner[CAPSConfig]):
    """Constraint-adaptive policy switching on IQL (Chemingui et al., AAAI 2025)."""

    name: ClassVar[str] = "caps"
    Config = CAPSConfig

    def build(self) -> None:
        """See `SimpleLearner`."""
        super().build()
        config = self.config
        self.actor: PolicyHeads = self.scaled(
            PolicyHeads(
                self.dataset.observation_size,
                self.dataset.action_size,
                heads=config.heads,
                hidden_sizes=config.hidden_sizes,
            )
        )
        fitted = self.actor if config.deviation == "learned" else self.actor.network
        self.actor_optimizer = adam(fitted, rate=config.actor_rate)
        self.mixtures = mixtures(config.heads)
        self.extraction = self.robust_extraction(config, self.all_heads)

    def learn(self) -> dict[str, Tensor]:
        """See `SimpleLearner`."""
        batch, discount = self.batches.sample(), self.config.discount
        following, going_on = batch["next_observations"], batch["going_on"]
        with torch.no_grad():  # of the values before their step, as are the policy's advantages
            targets = {
                "reward_target": batch["rewards"]
                + discount * going_on * self.reward.of_states(following),
                "cost_target": batch["costs"]
                + discount * going_on * self.cost.of_states(following),
            }
        advantages = {
            "reward": self.reward.advantages(batch),
            "cost": self.cost.advantages(batch),
        }
        values = self.fit_values(advantages)
        critics = self.fit_critics(batch, **targets)
        actor = self.actor_loss(batch, **advantages)
        self.set_actor_rate(self.actor_optimizer, step=self.step)
        descend(self.actor_optimizer, actor)
        return detached({**values, **critics, "actor": actor})

    def actor_loss(self, batch: Columns, reward: Tensor, cost: Tensor) -> Tensor:
        """Weighted negative log-likelihood of actions, in half ranges; robust on request.

        Args:
            batch: Transitions.
            reward: Advantages of reward, (B,).
            cost: Advantages of cost, (B,).

        Returns:
            A mean over rows and heads.
        """
        config = self.config
        for_reward = exponential_weights(reward, beta=config.reward_beta, cap=config.weight_cap)
        for_cost = exponential_weights(cost, beta=config.cost_beta, cap=config.cost_weight_cap)
        weights = self.mixtures @ torch.stack([for_reward, for_cost])
        units = self.box.units(batch["actions"])[:, None]

        def loss(shown: Tensor) -> Tensor:
            return (weights.T * gaussian_nll(units, *self.actor(shown))).mean()

        observations, done = batch["observations"], self.step / self.steps
        return loss(observations) + self.extraction.term(loss, observations, done=done)

    def all_heads(self, observations: Tensor) -> Distribution:
        """Means and deviations of all heads as those of one action, (B, K * da), for (B, ds)."""
        means, std = self.actor(observations)
        return means.flatten(1), std.expand_as(means).flatten(1)

    def policy(self) -> TrainedPolicy:
        """See `SimpleLearner`."""
        config, dataset = self.config, self.dataset
        actor: SwitchingPolicy = self.scaled(
            SwitchingPolicy(
                dataset.observation_size,
                copy.deepcopy(self.box),
                hidden_sizes=config.hidden_sizes,
                heads=config.heads,
                critic_hidden_sizes=config.critic_hidden_sizes,
                critic_members=config.critic_members,
            )
        )
        for copied, network in (
            (actor.heads, self.actor),
            (actor.reward_critic, self.reward.critic),
            (actor.cost_critic, self.cost.critic),
        ):
            copied.load_state_dict(network.state_dict())
        actor.target_cost.fill_(config.cost_limit)
        actor.discounted_unit.fill_(self.discounted(1.0))
        return self.trained_policy(
            actor, reward_critic=self.reward.critic, cost_critic=self.cost.critic
        )
