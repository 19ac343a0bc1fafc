"""The actor of batch-constrained Q-learning: the best of what a VAE proposes, a little shifted.

Source: Fujimoto et al., "Off-Policy Deep Reinforcement Learning without Exploration", ICML 2019.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from safer_offline.policies.actors import ActionBox, Actor
from safer_offline.policies.critics import CriticEnsemble
from safer_offline.policies.gaussian import MIN_STD
from safer_offline.policies.layers import Standardizer, mlp
from safer_offline.policies.vae import LATENT_CLIP, ActionVAE


class Perturbation(nn.Module):
    """Shifts an action by at most a share of half the action range.

    Args:
        observation_size: Size of an observation.
        box: Action bounds.
        hidden_sizes: Hidden layers.
        size: That share.
    """

    def __init__(
        self, observation_size: int, box: ActionBox, *, hidden_sizes: Sequence[int], size: float
    ) -> None:
        super().__init__()
        action_size = box.centre.shape[0]
        self.observations = Standardizer(observation_size)
        self.box = box
        self.size = size
        self.network = mlp((observation_size + action_size, *hidden_sizes, action_size), nn.Tanh)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Shifted actions, within the bounds, for (B, ds) and (B, da)."""
        units = self.box.units(actions)
        shift = torch.tanh(self.network(torch.cat([self.observations(observations), units], -1)))
        return self.box.scale((units + self.size * shift).clamp(-1, 1))


class CandidatePolicy(Actor):
    """Takes the candidate of the largest value, Q(s, a) - multiplier * Qc(s, a).

    The candidates come from latents that are fixed, the first of them zero, so that the policy is a
    function of the observation; `sample` draws new ones. A single candidate needs no critics.

    Args:
        observation_size: Size of an observation.
        box: Action bounds.
        hidden_sizes: Hidden layers of the perturbation.
        candidates: Number of candidates K.
        perturbation: How far these are shifted at most, in half action ranges.
        vae_hidden_size: Width of the VAE.
        critic_hidden_sizes: Hidden layers of the critics.
        critic_members: Networks in each critic; the least of their estimates counts.

    Attributes:
        vae: Makes candidates of latents.
        perturbation: Shifts them.
        reward_critic: Q; None if K = 1.
        cost_critic: Qc; likewise.
        multiplier: Price of cost, ().
        latents: Shape (K, latent size).
    """

    multiplier: Tensor
    latents: Tensor

    def __init__(
        self,
        observation_size: int,
        box: ActionBox,
        *,
        hidden_sizes: Sequence[int],
        candidates: int,
        perturbation: float,
        vae_hidden_size: int,
        critic_hidden_sizes: Sequence[int],
        critic_members: int,
    ) -> None:
        super().__init__(observation_size, box, hidden_sizes=hidden_sizes)
        self._settings = {
            "candidates": candidates,
            "perturbation": perturbation,
            "vae_hidden_size": vae_hidden_size,
            "critic_hidden_sizes": list(critic_hidden_sizes),
            "critic_members": critic_members,
        }
        # A box for each: a policy file holds no tensor twice.
        self.vae = ActionVAE(observation_size, copy.deepcopy(box), hidden_size=vae_hidden_size)
        self.perturbation = Perturbation(
            observation_size, copy.deepcopy(box), hidden_sizes=hidden_sizes, size=perturbation
        )

        def critic() -> CriticEnsemble | None:
            if candidates == 1:
                return None
            return CriticEnsemble(
                observation_size,
                box.centre.shape[0],
                members=critic_members,
                hidden_sizes=critic_hidden_sizes,
            )

        self.reward_critic, self.cost_critic = critic(), critic()
        self.register_buffer("multiplier", torch.zeros(()))
        self.register_buffer("latents", torch.zeros(candidates, self.vae.latent_size))

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Actor`."""
        return self._settings

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """The best candidate, and for a deviation the least that policies have."""
        best = self.best_of(observations, self.latents.repeat(len(observations), 1))
        return best, (MIN_STD * self.box.half_range).expand_as(best)

    def sample(self, observations: Tensor) -> Tensor:
        """See `Actor`: the best of new candidates."""
        shape = (len(observations) * len(self.latents), self.vae.latent_size)
        return self.best_of(observations, torch.randn(shape).clamp(-LATENT_CLIP, LATENT_CLIP))

    def best_of(self, observations: Tensor, latents: Tensor) -> Tensor:
        """The best action for each of (B, ds) observations, (B, da).

        Args:
            observations: Shape (B, ds).
            latents: K for each observation, one after the other, (B * K, latent size).
        """
        count = len(self.latents)
        repeated = observations.repeat_interleave(count, dim=0)
        actions: Tensor = self.perturbation(repeated, self.vae.actions(repeated, latents))
        if self.reward_critic is None or self.cost_critic is None:
            return actions
        reward = self.reward_critic.standardized(repeated, actions).amin(0)
        cost = self.cost_critic.standardized(repeated, actions).amin(0)
        best = (reward - self.multiplier * cost).view(-1, count).argmax(1)
        rows = torch.arange(len(best), device=best.device)
        return actions.view(-1, count, actions.shape[-1])[rows, best]
