"""What is certain of each visited state, and beside it what an attack finds there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from safer_offline.attacks import (
    ActionAttack,
    AttackTarget,
    GeneratorNoise,
    GradientAttack,
    MaxCost,
)
from safer_offline.attacks.base import Start
from safer_offline.evaluation.certificates.bounds import (
    Interval,
    Network,
    mean_bounds,
    split_bounds,
)
from safer_offline.evaluation.certificates.networks import ActionNetwork, cost_networks
from safer_offline.evaluation.rollouts import EvaluatedPolicy
from safer_offline.policies.critics import CriticEnsemble

BLOCK_NUMBERS = 2**22
"""Numbers of the largest array at a time, 32 MiB: a box needs width^2 of them."""

SPLITS = 2
"""Cuts of the box around a state. One more takes twice the time, and tightens by a tenth or so."""


class Push(ActionAttack):
    """Moves one coordinate of the action as far as it can.

    Args:
        coordinate: Which one.
        side: 1 pushes it up, -1 down.
        steps: See `GradientAttack`.
        restarts: See `GradientAttack`.
    """

    name: ClassVar[str] = "push"
    starts: ClassVar[tuple[Start, ...]] = ("zero", "corner", "corner", "corner", "random")

    def __init__(self, coordinate: int, side: int, *, steps: int = 20, restarts: int = 5) -> None:
        super().__init__(steps=steps, restarts=restarts)
        self.coordinate = coordinate
        self.side = side

    def judge(self, target: AttackTarget, clean: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """See `ActionAttack`."""
        return lambda mean, _: self.side * mean[:, self.coordinate]


class Attacked(NamedTuple):
    """The worst that attacks found at each of M states."""

    least: Tensor
    """Action coordinates, each pushed down, (M, da), float64."""
    largest: Tensor
    """Pushed up."""
    cost: Tensor | None
    """The largest expected cost of an action, (M,); None without a critic."""


def certified_actions(
    acting: ActionNetwork, states: Tensor, budget: Tensor, *, done: Callable[[int], object]
) -> Interval:
    """Every action of observations within the budget of raw states (M, ds), each (M, da).

    Args:
        acting: The policy.
        states: True observations.
        budget: Raw units, (ds,).
        done: Gets the number of states of each block.
    """
    blocks = []
    for rows in _blocks(states, acting.network):
        box = Interval.around(rows, budget)
        answers = split_bounds(acting.network, box, splits=SPLITS)
        blocks.append(Interval(*(acting.finish(end) for end in answers)))
        done(len(rows))
    return Interval(*(torch.cat(ends) for ends in zip(*blocks, strict=True)))


def certified_cost(
    critic: CriticEnsemble, states: Tensor, actions: Interval, *, done: Callable[[int], object]
) -> Tensor:
    """A number that Q_c(s, a) exceeds for no action of an interval, shape (M,).

    Args:
        critic: Q_c; the mean of its members.
        states: True observations s, raw, (M, ds).
        actions: Each (M, da).
        done: Gets the number of states of each block.
    """
    networks = cost_networks(critic)
    inputs = torch.cat([states.double(), actions.lower, actions.upper], dim=1)
    size = states.shape[1]
    blocks = []
    for rows in _blocks(inputs, networks[0]):
        seen, low, high = rows.tensor_split((size, size + actions.lower.shape[1]), dim=1)
        box = Interval(torch.cat([seen, low], dim=1), torch.cat([seen, high], dim=1))
        blocks.append(mean_bounds(networks, box).upper[:, 0])
        done(len(rows))
    return torch.cat(blocks)


def attacked(policy: EvaluatedPolicy, states: Tensor, budget: Tensor, *, seed: int) -> Attacked:
    """What projected gradient ascent finds within the budget, against the policy as it acts.

    Args:
        policy: The victim.
        states: True observations, raw, (M, ds).
        budget: Raw units, (ds,).
        seed: Of the starting points.
    """
    noise = GeneratorNoise(torch.Generator().manual_seed(seed))
    with_critic = "cost" in getattr(policy, "critics", ())
    attacks: list[GradientAttack] = [
        Push(coordinate, side) for coordinate in range(policy.action_size) for side in (-1, 1)
    ]
    if with_critic:
        attacks.append(MaxCost())
    least = largest = act(policy, states)
    cost = expected_cost(policy, states, least) if with_critic else None
    for attack in attacks:
        actions = act(policy, attack.perturb(policy, states, epsilon=budget, noise=noise))
        least, largest = torch.minimum(least, actions), torch.maximum(largest, actions)
        if cost is not None:
            cost = torch.maximum(cost, expected_cost(policy, states, actions))
    return Attacked(least.double(), largest.double(), cost)


def act(policy: EvaluatedPolicy, observations: Tensor) -> Tensor:
    """What a policy does, (M, da), where it sees this, (M, ds)."""
    return torch.as_tensor(policy.predict(observations.numpy()))


@torch.no_grad()
def expected_cost(policy: EvaluatedPolicy, states: Tensor, actions: Tensor) -> Tensor:
    """Q_c(s, a), shape (M,), float64."""
    return policy.q_cost(states, actions).double()


def _blocks(rows: Tensor, network: Network) -> Iterator[Tensor]:
    size = max(1, BLOCK_NUMBERS // (network.width**2 * 2**SPLITS))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
