"""The squashed Gaussian: a Gaussian before the tanh that maps it into the action bounds.

The actor of soft actor-critic (Haarnoja et al., 2018), and so of CPQ, COptiDICE and BEAR-Lag.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from safer_offline.policies.actors import ActionBox, Actor
from safer_offline.policies.gaussian import MIN_STD
from safer_offline.policies.layers import mlp

LOG_STD_RANGE = (-20.0, 2.0)


class SquashedGaussianPolicy(Actor):
    """a = box(tanh(x)), x ~ N(location(s), diag deviation(s)^2).

    Args:
        observation_size: Size of an observation.
        box: Action bounds.
        hidden_sizes: Hidden layers.
    """

    def __init__(
        self, observation_size: int, box: ActionBox, *, hidden_sizes: Sequence[int]
    ) -> None:
        super().__init__(observation_size, box, hidden_sizes=hidden_sizes)
        self.network = mlp((observation_size, *hidden_sizes, 2 * box.centre.shape[0]))

    def before_tanh(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Location and deviation of x for raw (B, ds) observations, each (B, da)."""
        location, log_std = self.network(self.observations(observations)).chunk(2, dim=-1)
        return location, log_std.clamp(*LOG_STD_RANGE).exp()

    def squash(self, x: Tensor) -> Tensor:
        """The actions of numbers before the tanh."""
        return self.box.scale(torch.tanh(x))

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """The action of the location, and how far one deviation to either side of it leads.

        The latter has the floor of `GaussianPolicy`: at the bounds, the tanh leaves nothing of the
        deviation, and whatever divides by it would see no difference but there.
        """
        location, std = self.before_tanh(observations)
        spread = (torch.tanh(location + std) - torch.tanh(location - std)) / 2
        return self.squash(location), self.box.half_range * (MIN_STD + spread)

    def sample(self, observations: Tensor) -> Tensor:
        """See `Actor`."""
        return self.squash(torch.normal(*self.before_tanh(observations)))
