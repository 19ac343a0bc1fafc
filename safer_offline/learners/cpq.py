"""CPQ: Q-learning that gives no value to what is unsafe, and takes what is unlike the data for it.

Source: Xu, Zhan and Zhu, "Constraints Penalized Q-learning for Safe Offline Reinforcement
Learning", AAAI 2022. With the discounted limit d, targets of reward count only where the cost
critic keeps it,

    y = r + discount * 1[Qc'(s', a') <= d] * Q'(s', a'),   a' ~ pi(s'),

the cost critic is fitted to its own targets while actions of the policy that a VAE finds unlike the
data are pushed above the limit by a solved weight alpha, and the policy maximises
1[Qc(s, a) <= d] Q(s, a).

OSRL's code, whose hyperparameters these are, does three things that the paper does not, beside
those of `constrained`: the push has no gradient, for it is computed by the target network
(`push="none"`); the actions to be judged by the VAE lack the tanh
(`unlikely_actions="unsquashed"`); and the two critics' targets draw an action a' each, where one
does for both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from safer_offline.datasets.dataset.access import Columns
from safer_offline.errors import UsageError
from safer_offline.learners.constrained import (
    ConstrainedLearner,
    CriticConfig,
    adam,
    descend,
    detached,
    in_pieces,
    require_positive,
    squared_errors,
    target_copy,
)
from safer_offline.learners.robust import RobustConfig
from safer_offline.policies.layers import polyak_update
from safer_offline.policies.trained import TrainedPolicy
from safer_offline.policies.vae import ActionVAE, latent_divergence, vae_loss


@dataclass(frozen=True, kw_only=True)
class CPQConfig(CriticConfig, RobustConfig):
    """Settings of CPQ (Xu, Zhan and Zhu, AAAI 2022).

    Defaults are OSRL's, which trains for 100,000 steps.

    Attributes:
        unlikely_quantile: Sampled actions are unlike the data above this quantile of a batch's.
        unlikely_limit: What their cost is pushed above, in multiples of the discounted limit.
        unlikely_actions: Whether these are the policy's, or, as in OSRL, those before the tanh.
        push: Whether the push reaches the critic, as in the paper; `none` only observes it, as
            OSRL does.
        alpha_rate: Step size of the weight of the push.
    """

    actor_rate: float = 1e-4
    unlikely_quantile: float = 0.75
    unlikely_limit: float = 1.5
    unlikely_actions: Literal["squashed", "unsquashed"] = "squashed"
    push: Literal["critic", "none"] = "critic"
    alpha_rate: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        RobustConfig.__post_init__(self)
        require_positive(self, "unlikely_limit", "alpha_rate")
        if not 0 <= self.unlikely_quantile < 1:
            raise UsageError(
                f"unlikely_quantile must be >= 0 and below 1, but is {self.unlikely_quantile}"
            )


class CPQ(ConstrainedLearner[CPQConfig]):
    """Constraints penalized Q-learning (Xu et al., AAAI 2022)."""

    name: ClassVar[str] = "cpq"
    Config = CPQConfig

    def build(self) -> None:
        """See `SimpleLearner`."""
        super().build()
        config = self.config
        self.actor = self.squashed_policy()
        self.reward_critic = self.value_critic(unit=config.reward_scale)
        self.cost_critic = self.value_critic()
        self.reward_target = target_copy(self.reward_critic)
        self.cost_target = target_copy(self.cost_critic)
        self.vae: ActionVAE = self.scaled(
            ActionVAE(self.dataset.observation_size, self.box, hidden_size=config.vae_hidden_size)
        )
        self.log_alpha = torch.zeros(())
        self.vae_optimizer = adam(self.vae, rate=config.vae_rate)
        self.critic_optimizer = adam(self.reward_critic, self.cost_critic, rate=config.critic_rate)
        self.actor_optimizer = adam(self.actor, rate=config.actor_rate)
        self.extraction = self.robust_extraction(config, self.actor, inner=self.actor.before_tanh)

    def learn(self) -> dict[str, Tensor]:
        """See `SimpleLearner`."""
        batch, config = self.batches.sample(), self.config
        observations, actions = batch["observations"], batch["actions"]
        noise = self.noise(len(actions), self.vae.latent_size)
        vae = vae_loss(self.vae, observations, actions, noise=noise, kl_weight=config.kl_weight)
        descend(self.vae_optimizer, vae)
        critics = self.critic_losses(batch)
        descend(self.critic_optimizer, critics["reward_critic"] + critics["cost_critic"])
        actor = self.actor_loss(observations)
        descend(self.actor_optimizer, actor)
        polyak_update(self.reward_target, self.reward_critic, config.target_rate)
        polyak_update(self.cost_target, self.cost_critic, config.target_rate)
        return detached({"vae": vae, **critics, "actor": actor})

    def critic_losses(self, batch: Columns) -> dict[str, Tensor]:
        """Losses of both critics; moves alpha."""
        config, alpha = self.config, self.log_alpha.exp()
        reward_target, cost_target = self.targets(batch)
        estimates = self.reward_critic.standardized(batch["observations"], batch["actions"])
        costs = self.cost_critic.standardized(batch["observations"], batch["actions"])
        unlikely_cost = self.unlikely_cost(batch["observations"])
        missing = config.unlikely_limit * self.limit - unlikely_cost
        self.log_alpha = (self.log_alpha + config.alpha_rate * alpha * missing.detach()).clamp(
            -5, 5
        )
        return {
            "reward_critic": squared_errors(estimates, reward_target),
            "cost_critic": squared_errors(costs, cost_target) + alpha * missing,
            "alpha": alpha,
            "unlikely_cost": unlikely_cost,
        }

    @torch.no_grad()
    def targets(self, batch: Columns) -> tuple[Tensor, Tensor]:
        """Targets of reward and cost at the policy's next action, each (B,)."""
        config, observations = self.config, batch["next_observations"]
        actions = self.draw(observations)
        value = self.reward_target.standardized(observations, actions).amin(0)
        cost = self.cost_target.standardized(observations, actions).amin(0)
        going_on = batch["going_on"]
        safe_value = going_on * (cost <= self.limit) * value
        cost_to_go = going_on * cost if config.cost_ends else cost
        return (
            batch["rewards"] + config.discount * safe_value,
            batch["costs"] + config.discount * cost_to_go,
        )

    def unlikely_cost(self, observations: Tensor) -> Tensor:
        """Cost of the policy's actions, counting as zero those that are like the data; a mean.

        The VAE is asked about all of them, the critic about the unlikely ones alone.
        """
        config, count = self.config, len(observations)
        total = config.sampled_actions * count
        with torch.no_grad():
            location, std = self.actor.before_tanh(observations)
            x = location + std * self.noise(config.sampled_actions, *location.shape)
            squash = self.actor.squash if config.unlikely_actions == "squashed" else self.box.scale
            actions = squash(x).flatten(0, 1)
            repeated = observations.repeat(config.sampled_actions, 1)
            unlikeliness = torch.cat([*in_pieces(self.unlikeliness, repeated, actions)])
            above = total - math.ceil(config.unlikely_quantile * (total - 1))
            unlikely = unlikeliness.topk(above, sorted=False).indices
        critic = self.cost_critic if config.push == "critic" else self.cost_target
        cost = critic.standardized(repeated[unlikely], actions[unlikely]).amin(0)
        return cost.sum() / total

    def unlikeliness(self, observations: Tensor, actions: Tensor) -> Tensor:
        """How far the VAE's latents are from what they are for the data's actions, (B,)."""
        return latent_divergence(*self.vae.encode(observations, actions)).mean(1)

    def actor_loss(self, observations: Tensor) -> Tensor:
        """Minus the value of the policy's actions where they keep the limit; robust on request."""

        def loss(shown: Tensor) -> Tensor:
            actions = self.draw(shown)
            with torch.no_grad():
                safe = self.cost_critic.standardized(observations, actions).amin(0) <= self.limit
            return -(safe * self.reward_critic.standardized(observations, actions).amin(0)).mean()

        done = self.step / self.steps
        return loss(observations) + self.extraction.term(loss, observations, done=done)

    def draw(self, observations: Tensor) -> Tensor:
        """Actions of the policy, reparametrised, (B, da)."""
        location, std = self.actor.before_tanh(observations)
        return self.actor.squash(location + std * self.noise(*location.shape))

    def policy(self) -> TrainedPolicy:
        """See `SimpleLearner`."""
        return self.trained_policy(
            self.actor, reward_critic=self.reward_critic, cost_critic=self.cost_critic
        )
