"""Bad luck, noticed while learning: what was estimated does not carry the rest."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from safer_offline.learners.safer.estimation import Estimation
from safer_offline.policies.critics import CriticEnsemble

EXPLAINED = 0.1
"""A critic that explains less of what differs in the data says next to nothing."""

HANDFUL = 5
"""Episodes; fewer have much in common by chance."""

TRIAL = 250
"""Updates of stage 1 below which nothing can be known yet."""

BATCHES = 16


@torch.no_grad()
def doubt_critics(estimation: Estimation) -> None:
    """Warn of critics that do not fit the data they were fitted to."""
    if estimation.steps < TRIAL:
        return
    batches = [estimation.batches.sample() for _ in range(BATCHES)]
    critics = {"reward": estimation.reward_critic, "cost": estimation.cost_critic}
    for name, critic in critics.items():
        share = _explained(critic, batches, f"{name}_to_go")
        if share < EXPLAINED:
            warnings.warn(
                f"the {name} critic explains {max(share, 0):.0%} of what differs in the data: "
                "recovery and attacks that it leads are guesswork. Train longer (--steps), with "
                "larger networks (--set hidden_sizes=256,256) or with more data",
                stacklevel=2,
            )


def doubt_weights(effective: float) -> None:
    """Warn of an E-step that follows a handful of episodes.

    Args:
        effective: Episodes that carry the weight, 1 / sum q^2.
    """
    if effective < HANDFUL:
        warnings.warn(
            f"about {effective:.0f} episodes carry the weight of the E-step: what they have in "
            "common by chance will be imitated. A larger --set episode_share=, a higher limit or "
            "a smaller margin lets more of them count",
            stacklevel=2,
        )


def _explained(critic: CriticEnsemble, batches: list[dict[str, Tensor]], name: str) -> float:
    """Share of the variance of the targets that the members' mean explains; 1 if there is none."""
    targets = torch.cat([batch[name] for batch in batches])
    means = torch.cat([critic.mean(batch["observations"], batch["actions"]) for batch in batches])
    variance = targets.var()
    if variance <= 0:
        return 1.0
    return float(1 - (targets - means).var() / variance)
