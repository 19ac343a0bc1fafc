"""What BCQ-Lag and BEAR-Lag share: two ensembles a critic, and a PID controller for the multiplier.

Each critic is two ensembles Q1, Q2 of which the least member counts, and its targets mix the lesser
and the greater of the two, at the best of several actions that the policy would take next,

    y = r + discount * max_a' [ m min(Q1', Q2') + (1 - m) max(Q1', Q2') ](s', a').

So do the targets of cost, which are the worst of these actions'. The multiplier of

    minimise  -Q(s, a) + lambda (Qc(s, a) - d)

is set by a controller (Stooke, Achiam and Abbeel, "Responsive Safety in Reinforcement Learning by
PID Lagrangian Methods", ICML 2020). As in OSRL, but for what `constrained` names, and that one draw
of next actions serves both critics.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from safer_offline.datasets.dataset.access import Columns
from safer_offline.errors import UsageError
from safer_offline.learners.constrained import (
    ConstrainedLearner,
    CriticConfig,
    adam,
    descend,
    detached,
    in_pieces,
    repeat_rows,
    squared_errors,
    target_copy,
)
from safer_offline.policies.critics import CriticEnsemble
from safer_offline.policies.layers import polyak_update
from safer_offline.policies.vae import LATENT_CLIP, ActionVAE, vae_loss


@dataclass(frozen=True, kw_only=True)
class LagrangianConfig(CriticConfig):
    """Settings that both have.

    Attributes:
        critic_members: Networks in each of a critic's two ensembles.
        sampled_actions: Next actions of which targets take the largest value.
        lesser_share: Weight m of the lesser of the two ensembles in targets.
        pid: Gains of the controller: of the error, of its sum and of its growth.
    """

    lesser_share: float = 0.75
    pid: tuple[float, float, float] = (0.1, 0.003, 0.001)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lesser_share <= 1:
            raise UsageError(f"lesser_share must be between 0 and 1, but is {self.lesser_share}")
        if not min(self.pid) >= 0:
            raise UsageError(f"pid must be three numbers >= 0, but is {self.pid}")


class PIDMultiplier(nn.Module):
    """A Lagrange multiplier that follows how far a limit is exceeded.

    Args:
        proportional: Gain of the error.
        integral: Gain of its sum, which never falls below zero.
        derivative: Gain of its growth since the last step.
    """

    error: Tensor
    total: Tensor

    def __init__(self, proportional: float, integral: float, derivative: float) -> None:
        super().__init__()
        self.gains = (proportional, integral, derivative)
        self.register_buffer("error", torch.zeros(()))
        self.register_buffer("total", torch.zeros(()))

    def control(self, error: Tensor) -> Tensor:
        """Take the next error, a mean excess (), and return the multiplier, ()."""
        error = error.detach()
        growth = functional.relu(error - self.error)
        self.total = functional.relu(self.total + error)
        self.error = error
        proportional, integral, derivative = self.gains
        return proportional * error.relu() + integral * self.total + derivative * growth


L = TypeVar("L", bound=LagrangianConfig)


class LagrangianLearner(ConstrainedLearner[L]):
    """VAE, critics and multiplier; a subclass says what acts and how it improves.

    Attributes:
        actor: What is improved; `actor_target` follows it.
        controller: Of the multiplier.
        multiplier: As it stands, ().
    """

    actor: nn.Module

    def build(self) -> None:
        """See `SimpleLearner`."""
        super().build()
        config = self.config
        members = 2 * config.critic_members
        self.actor = self.build_actor()
        self.reward_critic = self.value_critic(unit=config.reward_scale, members=members)
        self.cost_critic = self.value_critic(members=members)
        self.vae: ActionVAE = self.scaled(
            ActionVAE(self.dataset.observation_size, self.box, hidden_size=config.vae_hidden_size)
        )
        self.actor_target = target_copy(self.actor)
        self.reward_target = target_copy(self.reward_critic)
        self.cost_target = target_copy(self.cost_critic)
        self.controller = PIDMultiplier(*config.pid)
        self.multiplier = torch.zeros(())
        self.vae_optimizer = adam(self.vae, rate=config.vae_rate)
        self.critic_optimizer = adam(self.reward_critic, self.cost_critic, rate=config.critic_rate)
        self.actor_optimizer = adam(self.actor, rate=config.actor_rate)

    @abstractmethod
    def build_actor(self) -> nn.Module:
        """A new network of what acts."""

    @abstractmethod
    def next_draws(self, observations: Tensor) -> Tensor:
        """What is random in next actions: n in a row for each of (B, ds), (B * n, .)."""

    @abstractmethod
    def next_actions(self, observations: Tensor, draws: Tensor) -> Tensor:
        """Actions of `actor_target` that targets ask about, for (N, ds) and (N, .), (N, da)."""

    @abstractmethod
    def actor_losses(self, observations: Tensor) -> dict[str, Tensor]:
        """What the policy is improved by, under `actor`, and more for the log."""

    def learn(self) -> dict[str, Tensor]:
        """See `SimpleLearner`."""
        batch, config = self.batches.sample(), self.config
        observations, actions = batch["observations"], batch["actions"]
        noise = self.noise(len(actions), self.vae.latent_size)
        vae = vae_loss(self.vae, observations, actions, noise=noise, kl_weight=config.kl_weight)
        descend(self.vae_optimizer, vae)
        reward_target, cost_target = self.targets(batch)
        values = self.reward_critic.standardized(observations, actions)
        costs = self.cost_critic.standardized(observations, actions)
        critics = {
            "reward_critic": squared_errors(values, reward_target),
            "cost_critic": squared_errors(costs, cost_target),
        }
        descend(self.critic_optimizer, critics["reward_critic"] + critics["cost_critic"])
        actor = self.actor_losses(observations)
        descend(self.actor_optimizer, actor["actor"])
        for target, source in (
            (self.reward_target, self.reward_critic),
            (self.cost_target, self.cost_critic),
            (self.actor_target, self.actor),
        ):
            polyak_update(target, source, config.target_rate)
        return detached({"vae": vae, **critics, **actor, "multiplier": self.multiplier})

    @torch.no_grad()
    def targets(self, batch: Columns) -> tuple[Tensor, Tensor]:
        """Targets of reward and cost, each (B,)."""
        config, going_on = self.config, batch["going_on"]
        draws = self.next_draws(batch["next_observations"])
        observations = repeat_rows(batch["next_observations"], config.sampled_actions)
        estimates = torch.cat([*in_pieces(self.next_estimates, observations, draws)], dim=1)
        value, cost = estimates.view(2, len(going_on), -1).amax(2)
        cost_to_go = going_on * cost if config.cost_ends else cost
        return (
            batch["rewards"] + config.discount * going_on * value,
            batch["costs"] + config.discount * cost_to_go,
        )

    def next_estimates(self, observations: Tensor, draws: Tensor) -> Tensor:
        """Reward and cost to go of an action at each of (N, ds), shape (2, N)."""
        actions = self.next_actions(observations, draws)

        def mixed(critic: CriticEnsemble) -> Tensor:
            halves = critic.standardized(observations, actions).chunk(2)
            one, other = (half.amin(0) for half in halves)
            low, high = torch.minimum(one, other), torch.maximum(one, other)
            return torch.lerp(high, low, self.config.lesser_share)

        return torch.stack([mixed(self.reward_target), mixed(self.cost_target)])

    def judged(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean value of actions and mean excess of their cost over the limit, each ()."""
        value = self.reward_critic.standardized(observations, actions).amin(0).mean()
        cost = self.cost_critic.standardized(observations, actions).amin(0)
        return value, (cost - self.limit).mean()

    def latents(self, rows: int) -> Tensor:
        """Latents for the VAE to decode, (rows, latent size)."""
        return self.noise(rows, self.vae.latent_size).clamp(-LATENT_CLIP, LATENT_CLIP)
