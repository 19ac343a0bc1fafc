"""Bad luck, noticed while learning: what was estimated does not carry the rest."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from safer_offline.learners.safer.estimation import Estimation
from safer_offline.policies.critics import CriticEnsemble

EXPLAINED = 0.1
"""A critic that explains less of what differs in the data says next to nothing."""

TOLD_APART = 0.03
"""Of what the state leaves open, the share that the action must tell a critic which shall say how
to recover: 0.01 on Drone-Circle, which recovery unsettles, 0.05 to 0.16 on the seven others."""

SAMPLES = 15
"""Actions that the mean over the behaviour is taken of."""

HANDFUL = 5
"""Episodes; fewer have much in common by chance."""

TRIAL = 250
"""Updates of stage 1 below which nothing can be known yet."""

BATCHES = 16


@torch.no_grad()
def doubt_critics(estimation: Estimation) -> set[str]:
    """Warn of critics that do not fit the data they were fitted to.

    Returns:
        Which: `reward`, `cost`, both or none.
    """
    doubted: set[str] = set()
    if estimation.steps < TRIAL:
        return doubted
    batches = _trial(estimation)
    critics = {"reward": estimation.reward_critic, "cost": estimation.cost_critic}
    for name, critic in critics.items():
        share = _explained(critic, batches, f"{name}_to_go")
        if share < EXPLAINED:
            doubted.add(name)
            warnings.warn(
                f"the {name} critic explains {max(share, 0):.0%} of what differs in the data: "
                "recovery and attacks that it leads are guesswork. Train longer (--steps), with "
                "larger networks (--set hidden_sizes=256,256) or with more data",
                stacklevel=2,
            )
    return doubted


@torch.no_grad()
def doubt_recovery(estimation: Estimation) -> None:
    """Warn of a cost critic that hardly tells one action from another."""
    if estimation.steps < TRIAL:
        return
    critic, generator = estimation.cost_critic, torch.Generator().manual_seed(0)
    told, left = [], []
    for batch in _trial(estimation):
        observations, target = batch["observations"], batch["cost_to_go"]
        samples = estimation.behavior.sample(observations, SAMPLES, generator=generator)
        value = torch.stack([critic.mean(observations, action) for action in samples]).mean(0)
        told.append(critic.mean(observations, batch["actions"]) - value)
        left.append(target - value)
    advantages, residuals = (torch.cat(part).double() for part in (told, left))
    share = float(torch.corrcoef(torch.stack([advantages, residuals]))[0, 1] ** 2)
    if share < TOLD_APART:
        warnings.warn(
            f"the cost critic hardly tells actions apart (they explain {share:.0%} of what it "
            "cannot see in the state), so what it says of recovering may do more harm than good. "
            "Compare with a training without it (--set recovery_weight=0) and, for what must be "
            "steered all the time, with imitation by what was meant (--no-robust --set margin=2 "
            "--set foretold=15,45): safer-offline foresee RUN...",
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


def _trial(estimation: Estimation) -> list[dict[str, Tensor]]:
    """The batches that would come next; they will."""
    place = estimation.batches.state_dict()
    batches = [estimation.batches.sample() for _ in range(BATCHES)]
    estimation.batches.load_state_dict(place)
    return batches


def _explained(critic: CriticEnsemble, batches: list[dict[str, Tensor]], name: str) -> float:
    """Share of the variance of the targets that the members' mean explains; 1 if there is none."""
    targets = torch.cat([batch[name] for batch in batches])
    means = torch.cat([critic.mean(batch["observations"], batch["actions"]) for batch in batches])
    variance = targets.var()
    if variance <= 0:
        return 1.0
    return float(1 - (targets - means).var() / variance)
