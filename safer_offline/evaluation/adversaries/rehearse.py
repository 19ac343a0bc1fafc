"""How an attack is found that must be found in whole episodes; one way for each kind of attack."""

from __future__ import annotations

from functools import singledispatch

from safer_offline.attacks.base import Attack
from safer_offline.attacks.bias import Bias
from safer_offline.attacks.learned import Learned
from safer_offline.errors import UsageError
from safer_offline.evaluation.adversaries.bias import find_bias, search_episodes
from safer_offline.evaluation.adversaries.learned import train_adversary, training_work
from safer_offline.evaluation.adversaries.rehearsal import Rehearsal


@singledispatch
def rehearse(attack: Attack, rehearsal: Rehearsal) -> Attack:
    """The attack as it does most harm to the victim of the rehearsal.

    For an attack of your own: `@rehearse.register` a function of it and a `Rehearsal`.

    Raises:
        UsageError: If nobody said how this kind of attack is found.
    """
    raise UsageError(
        f"attack '{attack.name}' must be found in episodes first, and nobody says how: register a "
        "function with safer_offline.evaluation.adversaries.rehearse.rehearse"
    )


rehearse.register(Bias, find_bias)
rehearse.register(Learned, train_adversary)


@singledispatch
def rehearsal_work(attack: Attack, *, horizon: int, size: int) -> float:
    """How much there is to do, in steps of the simulator, or what takes as long.

    Args:
        attack: What `rehearse` is to find.
        horizon: Steps of an episode.
        size: Coordinates of an observation.
    """
    return 0.0


@rehearsal_work.register
def _(attack: Bias, *, horizon: int, size: int) -> float:
    return search_episodes(attack, size) * horizon


@rehearsal_work.register
def _(attack: Learned, *, horizon: int, size: int) -> float:
    return training_work(attack.steps) * attack.restarts
