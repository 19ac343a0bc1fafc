"""Whole episodes of a policy inside a learned model, under one attack or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from safer_offline.attacks import Attack, AttackTarget, GeneratorNoise
from safer_offline.foresight.model import DynamicsEnsemble, Step
from safer_offline.policies.trained import TrainedPolicy


@dataclass(frozen=True)
class Foreseen:
    """Episodes of each of M members of the model, from the same B starts.

    Attributes:
        returns: Shape (M, B).
        costs: Expected costs, shape (M, B).
        disagreement: How far the members were apart on the change of each step, a root mean
            square over members, steps and coordinates in usual changes of the data.
    """

    returns: Tensor
    costs: Tensor
    disagreement: float


@torch.no_grad()
def foresee_episodes(
    model: DynamicsEnsemble,
    policy: TrainedPolicy,
    starts: Tensor,
    *,
    length: int,
    attack: Attack,
    epsilon: Tensor,
    seed: int,
) -> Foreseen:
    """Act in the model.

    Args:
        model: What follows an action. Each member has episodes of its own.
        policy: Who acts.
        starts: First observations, raw, (B, ds).
        length: Steps of an episode that nothing ends.
        attack: What the policy is shown.
        epsilon: Its budget, raw, (ds,).
        seed: Of its random numbers.
    """
    members, (count, size) = model.members, starts.shape
    acting = policy.begin(members * count)
    # What remembers is attacked with what it remembers.
    victim = cast("AttackTarget", acting) if policy.remembers else policy
    noise = GeneratorNoise(torch.Generator().manual_seed(seed))
    observations = starts.expand(members, count, size).clone()
    alive = torch.ones(members, count)
    returns, costs, apart, steps = torch.zeros(4, members, count)
    own = torch.arange(members)
    for _ in range(length):
        flat = observations.reshape(-1, size)
        shown = attack.perturb(victim, flat, epsilon=epsilon, noise=noise)
        actions = torch.from_numpy(acting.predict(shown.numpy()))
        # All members judge the rows of all, [judge, owner, row]; each row follows its owner.
        judged = [
            part.reshape(members, members, count, *part.shape[2:]) for part in model(flat, actions)
        ]
        apart += alive * judged[0].var(0, correction=0).mean(-1)
        steps += alive
        step = Step(*(part[own, own] for part in judged))
        rewards = model.rewards.inverse(step.reward[..., None]).squeeze(-1)
        expected = model.costly * step.cost.sigmoid()
        returns += alive * rewards
        costs += alive * expected
        acting.earn(rewards.flatten(), expected.flatten())
        alive *= 1 - step.end.sigmoid()
        observations = model.follow(observations, step)
    return Foreseen(returns, costs, float((apart.sum() / steps.sum()).sqrt()))
