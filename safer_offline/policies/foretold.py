"""A Gaussian policy that is told what shall follow: reward and cost of a step a little later."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from safer_offline.policies.conditioned import ToldPolicy


class ForetoldPolicy(ToldPolicy):
    """pi(a | s, r, c): mean reward r and cost c of a window of steps ahead are two more inputs.

    Attributes:
        reward_ahead: The reward that it is told when it acts, shape (1,).
        cost_ahead: The cost, shape (1,).
    """

    targets: ClassVar[tuple[str, ...]] = ("reward_ahead", "cost_ahead")
    reward_ahead: Tensor
    cost_ahead: Tensor
