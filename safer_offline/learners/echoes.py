"""Which coordinates of an observation only repeat the last action.

Robots often report what they were last told to do: the rotor speeds of a drone that follow its
command at once. Whoever imitates actions finds them there ready to be copied, and copies from then
on himself; and an attacker of observations who owns them owns the action (on Drone-Run 0.025 is a
fifth of its range). They tell nothing about where the robot is, and no scripted pilot reads them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from safer_offline.datasets.dataset.access import TransitionSource

EXPLAINED = 0.99
"""Share of a coordinate's variance that the last action must explain."""

LEAST_VARIANCE = 1e-12
"""What varies less is a constant, which is left out for that."""


def echoes_of_actions(dataset: TransitionSource) -> Tensor:
    """Where the observation after a step is, but for 1 % of its variance, linear in the action.

    A coordinate that never varies is none. One pass over the data, least squares in float64.

    Returns:
        Shape (ds,), bool.
    """
    actions = outcomes = torch.zeros(1).double()
    within = across = spread = torch.zeros(1).double()
    rows = 0
    for number, block in enumerate(dataset.stream(("actions", "next_observations"))):
        told, seen = block["actions"].double(), block["next_observations"].double()
        if number == 0:
            # About means of the first block, so that no digits are lost to what all rows share.
            origin = told.mean(0), seen.mean(0)
        told, seen = told - origin[0], seen - origin[1]
        actions, outcomes = actions + told.sum(0), outcomes + seen.sum(0)
        within, across = within + told.T @ told, across + told.T @ seen
        spread = spread + (seen**2).sum(0)
        rows += len(told)
    within = within - torch.outer(actions, actions) / rows
    across = across - torch.outer(actions, outcomes) / rows
    spread = spread - outcomes**2 / rows
    explained: Tensor = (across * (torch.linalg.pinv(within, hermitian=True) @ across)).sum(0)
    return (spread > rows * LEAST_VARIANCE) & (explained > EXPLAINED * spread)
