"""A look at those who shall act, before the long work; what could spoil it is a warning."""

from __future__ import annotations

import warnings

import numpy as np

from safer_offline.context import EnvironmentContext
from safer_offline.datasets.behaviors.base import BehaviorFamily, FloatArray
from safer_offline.datasets.behaviors.sources import is_python
from safer_offline.datasets.collection.recipe import Recipe
from safer_offline.datasets.collection.shards import behaviors_of

PROBE_STEPS = 200
"""Steps of the episode in which a policy is probed: rare random choices show as well."""


def check_behaviors(recipe: Recipe) -> None:
    """Warn of policies that were trained for something else, or whose episodes do not repeat.

    Args:
        recipe: Who shall act where.

    Raises:
        UsageError: If a behaviour does not exist or fails.
    """
    families = behaviors_of(recipe)
    for family in families:
        if family.context is not None and (difference := _difference(family.context, recipe)):
            warnings.warn(
                f"the behaviour '{family.name}' was trained with {difference}", stacklevel=2
            )
    own = [
        (actor.policy, family)
        for actor, family in zip(recipe.behaviors, families, strict=True)
        if is_python(actor.policy)
    ]
    if not own:
        return
    environment = recipe.environment.make()
    try:
        for policy, family in own:
            source = np.random.SeedSequence([recipe.seed, 0, 0])
            seen, done = [environment.reset(recipe.seed % 2**32)], False
            act = family.draw(np.random.default_rng(source))
            actions: list[list[float]] = []
            while not done and len(actions) < PROBE_STEPS:
                actions.append(act(seen[-1]))
                step = environment.step(np.array(actions[-1], dtype=np.float32))
                seen.append(step.observation)
                done = step.terminated or step.truncated
            if _replay(family, source, seen[:-1]) != actions:
                warnings.warn(
                    f"{policy} acts differently when the same episode is played again: it has a "
                    "random generator or a memory of its own, so this dataset cannot be collected "
                    "again, and depends on --workers. Make it a class that takes the episode's "
                    "generator: __init__(self, generator), __call__(self, observation)",
                    stacklevel=2,
                )
    finally:
        environment.close()


def _replay(
    family: BehaviorFamily, source: np.random.SeedSequence, seen: list[FloatArray]
) -> list[list[float]]:
    """The actions of the same episode once more; the simulator has no part in it."""
    act = family.draw(np.random.default_rng(source))
    return [act(observation) for observation in seen]


def _difference(trained: EnvironmentContext, recipe: Recipe) -> str:
    source = recipe.environment
    actual = EnvironmentContext(
        env_id=source.env_id,
        kwargs=source.kwargs,
        cost_key=source.cost_key,
        max_episode_steps=source.max_episode_steps,
    )
    return " and ".join(
        f"{difference.name} {difference.carried!r}, here it is {difference.actual!r}"
        for difference in trained.differences(actual)
    )
