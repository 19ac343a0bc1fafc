"""The constant offset of the sensors that harms most, searched for in a learned model.

Attacks that decide each step by critics miss what a sensor does that is off for a whole episode:
whoever keeps a speed limit by what he sees is too fast all the way. In the model the search costs
seconds.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from safer_offline.attacks import Bias, NoiseSource
from safer_offline.attacks.bias import corners
from safer_offline.attacks.random import NoiseAttack
from safer_offline.foresight.episodes import foresee_episodes
from safer_offline.foresight.model import DynamicsEnsemble
from safer_offline.policies.trained import TrainedPolicy


class _Offsets(NoiseAttack):
    """A constant offset for each row of a batch, shape (B, ds), in multiples of the budget."""

    name: ClassVar[str] = "offsets"

    def __init__(self, offsets: Tensor) -> None:
        self._offsets = offsets

    def sample(self, noise: NoiseSource, shape: tuple[int, ...]) -> Tensor:
        """See `NoiseAttack`."""
        return self._offsets


def worst_bias(
    model: DynamicsEnsemble,
    policy: TrainedPolicy,
    starts: Tensor,
    *,
    length: int,
    epsilon: Tensor,
    seed: int,
) -> Bias:
    """The corner of the budget whose episodes in the model cost most, or else return least.

    Args:
        model: See `foresee_episodes`, like `policy`, `starts`, `length` and `epsilon`.
        policy: See there.
        starts: See there.
        length: See there.
        epsilon: See there.
        seed: Chooses among the corners where they are many.
    """
    free = epsilon > 0
    found = corners(int(free.sum()), np.random.default_rng(seed))
    tried = torch.zeros(len(found), len(epsilon))
    tried[:, free] = torch.from_numpy(found)
    count = len(starts)
    offsets = tried.repeat_interleave(count, dim=0)
    foreseen = foresee_episodes(
        model,
        policy,
        starts.repeat(len(tried), 1),
        length=length,
        attack=_Offsets(offsets.repeat(model.members, 1)),
        epsilon=epsilon,
        seed=seed,
    )
    costs, returns = (
        part.view(model.members, len(tried), count).mean((0, 2)).tolist()
        for part in (foreseen.costs, foreseen.returns)
    )
    worst = max(range(len(tried)), key=lambda one: (round(costs[one], 3), -returns[one]))
    return Bias(offset=tuple(tried[worst].tolist()))
