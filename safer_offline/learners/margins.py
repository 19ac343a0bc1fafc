"""What an episode's cost would be if its observations were off by an attacker's reach.

A policy under attack follows, in what it *perceives*, the paths it has learned; where it truly is
can be anywhere within the attacker's reach of what it perceives. So a path is safe to imitate only
if its whole neighbourhood is. A small model of cost, learned from the data, says where cost is; a
step counts as costly if any observation within `margin` of the budget is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from safer_offline.attacks.base import projected_ascent
from safer_offline.attacks.budget import Box
from safer_offline.policies.layers import Standardizer, mlp

BLOCK_ROWS = 16_384


class CostModel(nn.Module):
    """P(cost > 0 | s'), as a logit, of the observation that a step led to.

    Args:
        observation_size: Size of an observation.
        hidden_sizes: Hidden layers.
    """

    def __init__(self, observation_size: int, *, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.observations = Standardizer(observation_size)
        self.network = mlp((observation_size, *hidden_sizes, 1))

    def forward(self, next_observations: Tensor) -> Tensor:
        """Logits for raw (B, ds) observations, shape (B,); positive where cost is likely."""
        logits: Tensor = self.network(self.observations(next_observations))
        return logits.squeeze(-1)


def cost_model_loss(model: CostModel, next_observations: Tensor, costs: Tensor) -> Tensor:
    """Cross-entropy of "this step cost something" for (B, ds) and (B,)."""
    return functional.binary_cross_entropy_with_logits(
        model(next_observations), (costs > 0).float()
    )


def costs_within_margin(
    model: CostModel,
    next_observations: Tensor,
    costs: Tensor,
    *,
    reach: Tensor,
    steps: int = 8,
    generator: torch.Generator,
    costly: Tensor | None = None,
) -> Tensor:
    """The cost of each step if the worst observation within reach had been the true one.

    Args:
        model: Where cost is.
        next_observations: Observations that the steps led to, raw units, shape (N, ds).
        costs: What the steps cost, shape (N,).
        reach: How far each coordinate may be off, raw units, shape (ds,); on the model's device.
        steps: Gradient steps of the search for the worst observation.
        generator: For the starting points of the search.
        costly: Mean cost of a costly step, where these steps are a part of the data: `BLOCK_ROWS`
            of them give the same result as all together. None takes the mean of `costs`.

    Returns:
        Shape (N,): the observed cost, and where the model finds a costly observation within reach
        at least the mean cost of a costly step.
    """
    if costly is None:
        costly = costs[costs > 0].mean()
    if costly.isnan() or not bool((reach > 0).any()):
        return costs.clone()
    worst = costs.clone()
    for start in range(0, len(costs), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        centre = next_observations[rows].to(reach.device)
        # Within half the reach: from there the steps get to either side.
        noise = (torch.rand(centre.shape, generator=generator) - 0.5).to(reach.device)
        _, logits = projected_ascent(
            model, centre + reach * noise, box=Box.around(centre, reach), reach=reach, steps=steps
        )
        imagined = torch.where(logits.cpu() > 0, costly, 0.0)
        worst[rows] = torch.maximum(worst[rows], imagined)
    return worst
