"""What must hold of every evaluation: if it does not, its numbers mean nothing.

A gate looks at the episodes, or at what attacks reach of their own objectives, and says in words
what is wrong, one sentence for each attack; of an evaluation in order it says nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from safer_offline.attacks import (
    MAD,
    Attack,
    AttackTarget,
    GeneratorNoise,
    GradientAttack,
    Natural,
    Search,
)
from safer_offline.attacks.budget import Box

STATES = 128
"""At so many of the visited observations attacks are compared."""

SLACK = 0.1
"""Share of what an attack gains by which it may fall short without anybody being at fault."""

BLIND_SLACK = 0.25
"""The same for a search without gradients: where few coordinates have a budget it tries all
corners, and may find the best one that a climb from some starts misses."""

OUTCOME = ("reward", "cost", "length", "terminated")


def zero_budget_is_natural(episodes: pd.DataFrame) -> list[str]:
    """Without a budget, every attack must leave every episode as it is, to the last bit.

    Attacks meet the same starts. What differs therefore is an attack that does not keep its budget,
    or a policy or an environment that does not answer the same twice.

    Args:
        episodes: Those of a budget of zero, each attack's in the same order, with column `attack`
            and those of `OUTCOME`; without the natural ones there is nothing to compare with.

    Returns:
        A sentence for each attack at fault.
    """
    by_attack = {
        str(name): rows.reset_index(drop=True)
        for name, rows in episodes.groupby("attack", sort=False)
    }
    natural = by_attack.pop(Natural.name, None)
    if natural is None:
        return []
    failures = []
    for name, attacked in by_attack.items():
        different = (attacked[list(OUTCOME)] != natural[list(OUTCOME)]).any(axis=1).to_numpy()
        if different.any():
            first = int(different.argmax())
            failures.append(
                f"at ε = 0, {name} changes {different.sum()} of {len(natural)} episodes (episode "
                f"{first}: {_told(attacked, first)} instead of {_told(natural, first)}). Either "
                f"{name} leaves its budget, or the policy or the environment does not answer the "
                "same twice: do not trust its numbers"
            )
    return failures


def _told(episodes: pd.DataFrame, row: int) -> str:
    return ", ".join(f"{name} {float(episodes[name].iloc[row])!r}" for name in ("reward", "cost"))


def gradients_lead_somewhere(
    victims: Sequence[tuple[Attack, AttackTarget]], visited: Tensor, *, budget: Tensor
) -> list[str]:
    """Attacks that follow gradients must find what is found without, and more with more steps.

    If noise gets as far as an attack does, or a search that only asks for actions, its gradients
    are of no use ("masked"), and what looks robust is not. Attacks that may not use the whole
    budget at once are left out.

    Args:
        victims: Attacks, each with whom it asks.
        visited: Observations without attack, (N, ds).
        budget: Raw units, (ds,).

    Returns:
        A sentence for each attack at fault.
    """
    every = torch.linspace(0, len(visited) - 1, min(STATES, len(visited))).long()
    clean = visited[every]
    failures = []
    for attack, target in victims:
        if not isinstance(attack, GradientAttack):
            continue
        if type(attack).allowed is GradientAttack.allowed:
            failures += _compared(attack, target, clean, budget)
    return failures


def _compared(
    attack: GradientAttack, target: AttackTarget, clean: Tensor, budget: Tensor
) -> list[str]:
    box = Box.around(clean, budget)
    with torch.no_grad():
        objective = attack.objective(target, clean)

    def reached(seen: Tensor) -> float:
        with torch.no_grad():
            return objective(seen).mean().item()

    def by(one: GradientAttack | Search) -> float:
        # All rows, also those that a selective attack would leave alone.
        perturb: Any = GradientAttack.perturb if isinstance(one, GradientAttack) else Search.perturb
        return reached(perturb(one, target, clean, epsilon=budget, noise=_noise()))

    longer = copy.copy(attack)
    longer.steps = 2 * attack.steps
    found, more = by(attack), by(longer)
    noise = reached(box.project(clean + _noise().uniform(clean.shape) * budget))
    gain = abs(found - reached(clean))
    slack = SLACK * gain + 1e-6 * abs(found)
    failures = []
    if noise > found + slack:
        failures.append(
            f"{attack.name} reaches {found:.4g} of what it maximises, and uniform noise {noise:.4g}"
        )
    if found > more + slack:
        failures.append(
            f"{attack.name} reaches {found:.4g} of what it maximises, and less with twice the "
            f"gradient steps ({more:.4g})"
        )
    if type(attack) is MAD and (blind := by(Search())) > found + slack + BLIND_SLACK * gain:
        failures.append(
            f"{attack.name} changes the action by {found:.4g}, and a search without gradients by "
            f"{blind:.4g}: add 'search' to --attacks"
        )
    return [f"{one}. Its gradients mislead it: do not trust it" for one in failures]


def _noise() -> GeneratorNoise:
    return GeneratorNoise(torch.Generator().manual_seed(0))
