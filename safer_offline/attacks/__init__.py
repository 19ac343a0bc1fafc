"""Observation attacks, one class each, and their names."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from safer_offline.attacks.base import Attack, AttackTarget, GradientAttack
from safer_offline.attacks.budget import EpsilonUnits, attack_budget
from safer_offline.attacks.critic import MaxCost, MaxReward
from safer_offline.attacks.divergence import AMAD, MAD
from safer_offline.attacks.noise import GeneratorNoise, NoiseSource, RowNoise
from safer_offline.attacks.random import Gaussian, Natural, Uniform
from safer_offline.errors import UsageError

__all__ = [
    "AMAD",
    "ATTACKS",
    "MAD",
    "Attack",
    "AttackTarget",
    "EpsilonUnits",
    "Gaussian",
    "GeneratorNoise",
    "GradientAttack",
    "MaxCost",
    "MaxReward",
    "Natural",
    "NoiseSource",
    "RowNoise",
    "Uniform",
    "attack_budget",
    "make_attack",
    "resolve_attacks",
]

ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack for attack in (Natural, Uniform, Gaussian, MAD, AMAD, MaxCost, MaxReward)
}


def make_attack(name: str, **settings: Any) -> Attack:  # noqa: ANN401 - of that attack's __init__
    """The attack of that name.

    Raises:
        UsageError: If there is none; the message names the nearest one.
    """
    if name not in ATTACKS:
        nearest = difflib.get_close_matches(name, ATTACKS, n=1, cutoff=0.0)[0]
        raise UsageError(
            f"unknown attack '{name}'; the nearest known one is '{nearest}'. "
            f"Known: {', '.join(ATTACKS)}"
        )
    constructor: Callable[..., Attack] = ATTACKS[name]
    return constructor(**settings)


def resolve_attacks(attacks: str | Sequence[str | Attack]) -> tuple[Attack, ...]:
    """The attacks that a user asked for, in that order.

    Args:
        attacks: "all", names separated by commas, or a sequence of names and attacks.

    Raises:
        UsageError: If a name is unknown or given twice, or there are none.
    """
    if isinstance(attacks, str):
        names = [name.strip() for name in attacks.lower().split(",") if name.strip()]
        attacks = list(ATTACKS) if names == ["all"] else names
    resolved = tuple(make_attack(item) if isinstance(item, str) else item for item in attacks)
    if not resolved:
        raise UsageError(f"no attack given; known: all, {', '.join(ATTACKS)}")
    named = [attack.name for attack in resolved]
    for name in named:
        if named.count(name) > 1:
            raise UsageError(f"attack '{name}' is given twice")
    return resolved
