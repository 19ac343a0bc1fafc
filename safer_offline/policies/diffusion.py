"""A policy that takes noise out of actions, and of what is left takes the safest.

Sources: Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020; Zheng et
al., "Safe Offline Reinforcement Learning with Feasibility-Guided Diffusion Model", ICLR 2024, for
the network, the schedule and the choice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from safer_offline.policies.actors import ActionBox, Actor
from safer_offline.policies.critics import CriticEnsemble
from safer_offline.policies.gaussian import MIN_STD
from safer_offline.policies.layers import Standardizer, mlp

NOISE_RATES = (0.1, 10.0)
"""How fast a variance-preserving process adds noise at its beginning and at its end."""

WAVES, TIME_SIZE = 32, 128
"""Frequencies that tell of the time, and the numbers that they become."""


def noise_schedule(steps: int) -> Tensor:
    """Share beta of the variance that each of so many steps replaces by noise, (T,).

    The variance-preserving process of Song et al. (2021), whose rate grows linearly, in T steps.
    """
    low, high = NOISE_RATES
    step = torch.arange(1, steps + 1, dtype=torch.float64)
    decay = low / steps + (high - low) * (2 * step - 1) / (2 * steps**2)
    return -torch.expm1(-decay).float()


class ResidualBlock(nn.Module):
    """Layer norm and two layers, the first four times as wide, beside a short cut.

    Args:
        inputs: Numbers that come in.
        outputs: Numbers that go out; if others, the short cut has weights.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs, eps=1e-6)
        self.network = mlp((inputs, 4 * outputs, outputs), nn.Mish)
        self.short_cut = nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)

    def forward(self, hidden: Tensor, dropout: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        added: Tensor = self.network(self.norm(dropout(hidden)))
        shortened: Tensor = self.short_cut(hidden)
        return shortened + added


class Denoiser(nn.Module):
    """eps(x, s, t): the noise that is in a noisy action after step t of T, in half ranges.

    Args:
        observation_size: Size of an observation.
        action_size: Size of an action.
        steps: T.
        hidden_sizes: Widths of the residual blocks.
    """

    betas: Tensor

    def __init__(
        self, observation_size: int, action_size: int, *, steps: int, hidden_sizes: Sequence[int]
    ) -> None:
        super().__init__()
        self.observations = Standardizer(observation_size)
        self.frequencies = nn.Parameter(0.2 * torch.randn(WAVES))
        self.time = mlp((2 * WAVES, TIME_SIZE, TIME_SIZE), nn.Mish)
        inputs = action_size + observation_size + TIME_SIZE
        self.first = nn.Linear(inputs, hidden_sizes[0])
        self.blocks = nn.ModuleList(
            ResidualBlock(*sizes) for sizes in itertools.pairwise((hidden_sizes[0], *hidden_sizes))
        )
        self.last = nn.Linear(hidden_sizes[-1], action_size)
        self.register_buffer("betas", noise_schedule(steps))

    def forward(
        self,
        observations: Tensor,
        noisy: Tensor,
        times: Tensor,
        *,
        dropout: Callable[[Tensor], Tensor] = lambda hidden: hidden,
    ) -> Tensor:
        """For raw (B, ds), (B, da) and steps from 0 to T - 1, (B,) or (), (B, da).

        Args:
            observations: Raw ones.
            noisy: Actions in half ranges, and noise.
            times: Steps t.
            dropout: What leaves out parts of what comes into a block, while learning.
        """
        waves = 2 * math.pi * torch.arange(len(self.betas)).to(noisy)[:, None] * self.frequencies
        told = self.time(torch.cat([waves.cos(), waves.sin()], dim=-1))[times]
        told = told.expand(len(noisy), -1)
        hidden = self.first(torch.cat([noisy, self.observations(observations), told], dim=-1))
        for block in self.blocks:
            hidden = block(hidden, dropout)
        noise: Tensor = self.last(functional.mish(hidden))
        return noise

    def add_noise(self, units: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Actions in half ranges after step t of the process, (B, da).

        Args:
            units: Without noise, (B, da).
            noise: Standard normal, (B, da).
            times: Steps t, (B,).
        """
        kept = (1 - self.betas).cumprod(0)[times][:, None]
        return kept.sqrt() * units + (1 - kept).sqrt() * noise

    def remove_noise(self, observations: Tensor, latents: Tensor) -> Tensor:
        """Actions in half ranges, drawn by the process backwards, (B, da).

        Args:
            observations: Raw, (B, ds).
            latents: Standard normal, (B, T, da): where it begins, and what each step but the last
                adds.
        """
        alphas = 1 - self.betas
        kept = alphas.cumprod(0)
        x = latents[:, -1]
        for t in reversed(range(len(alphas))):
            noise = self(observations, x, torch.tensor(t, device=x.device))
            x = (x - self.betas[t] / (1 - kept[t]).sqrt() * noise) / alphas[t].sqrt()
            if t > 0:
                x = x + self.betas[t].sqrt() * latents[:, t - 1]
            x = x.clamp(-1, 1)
        return x


class DiffusionPolicy(Actor):
    """Takes, of K actions that a denoiser draws, the one of the least Qh(s, a).

    The noise to begin with is fixed, so that the policy is a function of the observation; `sample`
    draws new. Gradients pass through the drawing of the action that is chosen.

    Args:
        observation_size: Size of an observation.
        box: Action bounds.
        hidden_sizes: Widths of the denoiser's blocks.
        candidates: Number of candidates K.
        steps: Steps T of the denoiser.
        critic_hidden_sizes: Hidden layers of the critic.
        critic_members: Networks in it; the largest of their estimates counts.

    Attributes:
        denoiser: Draws candidates.
        violation_critic: Qh.
        latents: Shape (K, T, da).
    """

    latents: Tensor

    def __init__(
        self,
        observation_size: int,
        box: ActionBox,
        *,
        hidden_sizes: Sequence[int],
        candidates: int,
        steps: int,
        critic_hidden_sizes: Sequence[int],
        critic_members: int,
    ) -> None:
        super().__init__(observation_size, box, hidden_sizes=hidden_sizes)
        self._settings = {
            "candidates": candidates,
            "steps": steps,
            "critic_hidden_sizes": list(critic_hidden_sizes),
            "critic_members": critic_members,
        }
        action_size = box.centre.shape[0]
        self.denoiser = Denoiser(
            observation_size, action_size, steps=steps, hidden_sizes=hidden_sizes
        )
        self.violation_critic = CriticEnsemble(
            observation_size, action_size, members=critic_members, hidden_sizes=critic_hidden_sizes
        )
        self.register_buffer("latents", torch.zeros(candidates, steps, action_size))

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Actor`."""
        return self._settings

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """The safest candidate, and for a deviation the least that policies have."""
        safest = self.safest_of(
            observations, self.latents.expand(len(observations), *self.latents.shape)
        )
        return safest, (MIN_STD * self.box.half_range).expand_as(safest)

    def sample(self, observations: Tensor) -> Tensor:
        """See `Actor`: the safest of new candidates."""
        return self.safest_of(observations, torch.randn(len(observations), *self.latents.shape))

    def safest_of(self, observations: Tensor, latents: Tensor) -> Tensor:
        """The safest action for each of raw (B, ds) observations, (B, da).

        Args:
            observations: Shape (B, ds).
            latents: K for each observation, (B, K, T, da).
        """
        rows, count = latents.shape[:2]
        with torch.no_grad():  # the choice has no gradient, so that only one candidate costs one
            repeated = observations.repeat_interleave(count, dim=0)
            actions = self.draw(repeated, latents.flatten(0, 1))
            violation = self.violation_critic(repeated, actions).amax(0)
            chosen = violation.view(rows, count).argmin(1)
        return self.draw(observations, latents[torch.arange(rows, device=chosen.device), chosen])

    def draw(self, observations: Tensor, latents: Tensor) -> Tensor:
        """Actions for (B, ds) and (B, T, da), (B, da)."""
        return self.box.scale(self.denoiser.remove_noise(observations, latents))
