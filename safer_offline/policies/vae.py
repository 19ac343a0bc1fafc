"""What actions the data take at a state, as a conditional variational autoencoder.

Source: Fujimoto et al., "Off-Policy Deep Reinforcement Learning without Exploration", ICML 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from safer_offline.policies.actors import ActionBox
from safer_offline.policies.layers import Standardizer, mlp

LATENT_CLIP = 0.5
"""Latents to decode are drawn within this, where the data are dense."""


class ActionVAE(nn.Module):
    """q(z | s, a) and p(a | s, z), with twice as many latents as an action has numbers.

    Args:
        observation_size: Size of an observation.
        box: Action bounds.
        hidden_size: Width of both hidden layers of either network.
    """

    def __init__(self, observation_size: int, box: ActionBox, *, hidden_size: int) -> None:
        super().__init__()
        action_size = box.centre.shape[0]
        self.latent_size = 2 * action_size
        self.observations = Standardizer(observation_size)
        self.box = box
        hidden = (hidden_size, hidden_size)
        self.encoder = mlp((observation_size + action_size, *hidden, 2 * self.latent_size))
        self.decoder = mlp((observation_size + self.latent_size, *hidden, action_size))

    def encode(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of z for (B, ds) and (B, da), each (B, latent size)."""
        inputs = torch.cat([self.observations(observations), self.box.units(actions)], dim=-1)
        mean, log_std = self.encoder(inputs).chunk(2, dim=-1)
        return mean, log_std.clamp(-4, 15).exp()

    def decode(self, observations: Tensor, latents: Tensor) -> Tensor:
        """What gives the action behind a tanh (see `actions`), for (B, ds) and latents, (B, da)."""
        decoded: Tensor = self.decoder(torch.cat([self.observations(observations), latents], -1))
        return decoded

    def actions(self, observations: Tensor, latents: Tensor) -> Tensor:
        """Actions for (B, ds) observations and (B, latent size), (B, da)."""
        return self.box.scale(torch.tanh(self.decode(observations, latents)))


def latent_divergence(mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) of each coordinate: large where an action is unlike the data's.

    The shape of the arguments is that of the result.
    """
    return -0.5 * (1 + 2 * std.log() - mean**2 - std**2)


def vae_loss(
    vae: ActionVAE, observations: Tensor, actions: Tensor, *, noise: Tensor, kl_weight: float
) -> Tensor:
    """Squared error of actions, in half ranges, and the divergence of their latents.

    Args:
        vae: To be fitted.
        observations: Shape (B, ds).
        actions: Shape (B, da).
        noise: Standard normal, (B, latent size).
        kl_weight: Weight of the divergence.
    """
    mean, std = vae.encode(observations, actions)
    decoded = torch.tanh(vae.decode(observations, mean + std * noise))
    error = functional.mse_loss(decoded, vae.box.units(actions))
    return error + kl_weight * latent_divergence(mean, std).mean()
