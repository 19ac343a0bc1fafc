"""The squashed Gaussian: a Gaussian before the tanh that maps it into the action bounds.

The actor of soft actor-critic (Haarnoja et al., 2018), and so of CPQ, COptiDICE and BEAR-Lag.
"""

from __future__ import annotations

import torch
from torch import Tensor

from safer_offline.policies.gaussian import MIN_STD, GaussianPolicy

LOG_STD_RANGE = (-20.0, 2.0)


class SquashedGaussianPolicy(GaussianPolicy):
    """a = box(tanh(x)), x ~ N(location(s), diag deviation(s)^2), with the network of its base."""

    def before_tanh(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Location and deviation of x for raw (B, ds) observations, each (B, da)."""
        location, log_std = self.heads(observations)
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
