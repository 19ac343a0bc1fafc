"""The behaviour model: who acted in the data, as a mixture of Gaussians over actions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from safer_offline.policies.gaussian import ActionBox, gaussian_nll
from safer_offline.policies.layers import Standardizer, mlp


class BehaviorModel(nn.Module):
    """pi_b(a|s): a mixture of diagonal Gaussians fitted to the dataset's actions.

    Several behaviours drive through the same states; one Gaussian would put its mass between them,
    where nobody acted.

    Args:
        observation_size: Size of an observation.
        box: Action bounds.
        components: Gaussians in the mixture.
        hidden_sizes: Hidden layers.
    """

    def __init__(
        self,
        observation_size: int,
        box: ActionBox,
        *,
        components: int,
        hidden_sizes: Sequence[int],
    ) -> None:
        super().__init__()
        self.observations = Standardizer(observation_size)
        self.box = box
        self.components = components
        self.action_size = box.centre.shape[0]
        outputs = components * (1 + 2 * self.action_size)
        self.network = mlp((observation_size, *hidden_sizes, outputs))

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights (B, M), means (B, M, da) and standard deviations (B, M, da)."""
        raw = self.network(self.observations(observations))
        logits, rest = raw.split([self.components, raw.shape[-1] - self.components], dim=-1)
        location, spread = rest.view(-1, self.components, 2 * self.action_size).chunk(2, dim=-1)
        std = self.box.half_range * (0.01 + functional.softplus(spread - 1.0))
        return logits.log_softmax(-1), self.box.centre + self.box.half_range * location, std

    def nll(self, observations: Tensor, actions: Tensor) -> Tensor:
        """-log pi_b(a|s), shape (B,)."""
        log_weights, means, stds = self(observations)
        each = -gaussian_nll(actions[:, None].expand_as(means), means, stds)
        return -torch.logsumexp(log_weights + each, dim=-1)

    @torch.no_grad()
    def sample(self, observations: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
        """`count` actions within the bounds for each of (B, ds) observations: (count, B, da).

        The generator is one of the CPU, wherever the model is.
        """
        log_weights, means, stds = self(observations)
        chosen = torch.multinomial(
            log_weights.exp().cpu(), count, replacement=True, generator=generator
        ).T[..., None]
        index = chosen.to(means.device).expand(-1, -1, self.action_size)[:, :, None]
        mean = means.expand(count, -1, -1, -1).gather(2, index).squeeze(2)
        std = stds.expand(count, -1, -1, -1).gather(2, index).squeeze(2)
        noise = torch.empty_like(mean, device="cpu").normal_(generator=generator)
        return self.box.clip(mean + std * noise.to(mean.device))
