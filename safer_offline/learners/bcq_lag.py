"""BCQ-Lag: choose among what a VAE finds likely, at a price for cost that a controller sets.

Source: Fujimoto et al., "Off-Policy Deep Reinforcement Learning without Exploration", ICML 2019,
with the multiplier of Stooke et al., ICML 2020; see `lagrangian`. A VAE proposes actions, and a
perturbation shifts each by at most a small share of the range, to where Q - lambda Qc is larger.

BCQ acts by the best of several candidates. OSRL acts by one that it draws, whatever its value:
`act_candidates=1` and `predict(..., deterministic=False)` is the same. Here, where cost has a
price, the best is that of the objective which the perturbation is fitted to; see `CandidatePolicy`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from safer_offline.learners.constrained import require_positive
from safer_offline.learners.lagrangian import LagrangianConfig, LagrangianLearner
from safer_offline.policies.candidates import CandidatePolicy, Perturbation
from safer_offline.policies.trained import TrainedPolicy


@dataclass(frozen=True, kw_only=True)
class BCQLagConfig(LagrangianConfig):
    """Settings of BCQ-Lag (Fujimoto et al., ICML 2019; multiplier of Stooke et al., ICML 2020).

    Defaults are OSRL's, which trains for 100,000 steps.

    Attributes:
        perturbation: How far actions of the VAE are shifted at most, in half action ranges.
        act_candidates: Among how many actions the trained policy chooses; 1 as in OSRL.
    """

    perturbation: float = 0.05
    act_candidates: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "perturbation", "act_candidates")


class BCQLag(LagrangianLearner[BCQLagConfig]):
    """Batch-constrained Q-learning with a PID Lagrangian (Fujimoto et al., 2019)."""

    name: ClassVar[str] = "bcq-lag"
    Config = BCQLagConfig

    actor: Perturbation

    def build(self) -> None:
        """See `SimpleLearner`."""
        super().build()
        self.act_latents = self.latents(self.config.act_candidates)
        self.act_latents[0] = 0

    def build_actor(self) -> Perturbation:
        """See `LagrangianLearner`."""
        actor: Perturbation = self.scaled(
            Perturbation(
                self.dataset.observation_size,
                self.box,
                hidden_sizes=self.config.hidden_sizes,
                size=self.config.perturbation,
            )
        )
        return actor

    def next_draws(self, observations: Tensor) -> Tensor:
        """See `LagrangianLearner`: latents."""
        return self.latents(self.config.sampled_actions * len(observations))

    def next_actions(self, observations: Tensor, draws: Tensor) -> Tensor:
        """See `LagrangianLearner`."""
        proposed = self.vae.actions(observations, draws)
        shifted: Tensor = self.actor_target(observations, proposed)
        return shifted

    def actor_losses(self, observations: Tensor) -> dict[str, Tensor]:
        """See `LagrangianLearner`: minus the value of shifted actions, and the price of cost."""
        with torch.no_grad():
            proposed = self.vae.actions(observations, self.latents(len(observations)))
        value, excess = self.judged(observations, self.actor(observations, proposed))
        self.multiplier = self.controller.control(excess)
        price = self.multiplier * excess
        return {"actor": price - value, "price": price}

    def policy(self) -> TrainedPolicy:
        """See `SimpleLearner`."""
        config = self.config
        actor: CandidatePolicy = self.scaled(
            CandidatePolicy(
                self.dataset.observation_size,
                copy.deepcopy(self.box),
                hidden_sizes=config.hidden_sizes,
                candidates=config.act_candidates,
                perturbation=config.perturbation,
                vae_hidden_size=config.vae_hidden_size,
                critic_hidden_sizes=config.critic_hidden_sizes,
                critic_members=2 * config.critic_members,
            )
        )
        actor.vae.load_state_dict(self.vae.state_dict())
        actor.perturbation.load_state_dict(self.actor.state_dict())
        for copied, critic in (
            (actor.reward_critic, self.reward_critic),
            (actor.cost_critic, self.cost_critic),
        ):
            if copied is not None:
                copied.load_state_dict(critic.state_dict())
        actor.multiplier.copy_(self.multiplier)
        actor.latents.copy_(self.act_latents)
        return self.trained_policy(
            actor, reward_critic=self.reward_critic, cost_critic=self.cost_critic
        )
