"""A shard of a collection: some whole episodes, and a function of the plan and its own number.

It does not matter which process collects a shard, on which machine, when, or for the how-manieth
time; all else about collecting (`collection`) rests on that.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.behaviors import BehaviorFamily
from safer_offline.datasets.behaviors.base import Controller, ExplorationNoise, NoisyController
from safer_offline.datasets.behaviors.sources import behavior_from_source
from safer_offline.datasets.collection.recipe import Recipe
from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.dataset.schema import BehaviorPolicy, Metadata
from safer_offline.datasets.storage.hdf5 import save_dataset
from safer_offline.environments.base import SimulatedEnvironment
from safer_offline.environments.tasks import deciding_packages
from safer_offline.machine import installed_versions

SHARD_TRANSITIONS = 6_000
"""Transitions in a shard: a few seconds of work, which is what a crash can cost."""


@dataclass(frozen=True, kw_only=True)
class CollectionPlan:
    """Everything that the content of a collected dataset depends on.

    Attributes:
        recipe: Who acts where, how long, and the seed.
        checkpoints: SHA-256 of the weights of each learned behaviour, empty for the others.
        versions: Of the packages that decide what an episode looks like.
        shard_transitions: Transitions of a shard at least; the last shard may need fewer.
    """

    recipe: Recipe
    checkpoints: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    shard_transitions: int

    @classmethod
    def make(cls, recipe: Recipe) -> CollectionPlan:
        """The plan for a recipe on this machine.

        Raises:
            UsageError: If a behaviour or the environment does not exist.
        """
        families = behaviors_of(recipe)
        packages = "safer-offline", *deciding_packages(recipe.environment.env_id)
        return cls(
            recipe=recipe,
            checkpoints=tuple(family.checkpoint_sha256 or "" for family in families),
            versions=tuple(installed_versions(packages).items()),
            shard_transitions=SHARD_TRANSITIONS,
        )

    @property
    def shards(self) -> tuple[int, ...]:
        """How many transitions each shard collects at least."""
        whole, rest = divmod(self.recipe.transitions, self.shard_transitions)
        return (self.shard_transitions,) * whole + ((rest,) if rest else ())

    def to_json(self) -> str:
        """The plan as text; equal texts mean equal content."""
        told = {
            "recipe": self.recipe.to_json(),
            "checkpoints": self.checkpoints,
            "versions": dict(self.versions),
            "shard_transitions": self.shard_transitions,
        }
        return json.dumps(told, sort_keys=True)


def behaviors_of(recipe: Recipe) -> tuple[BehaviorFamily, ...]:
    """Those who act in a recipe, ready to, in its order.

    Raises:
        UsageError: If one does not exist.
        DataError: If a checkpoint is damaged or does not fit.
    """
    families = []
    for actor in recipe.behaviors:
        family = behavior_from_source(
            actor.policy,
            env_id=recipe.environment.env_id,
            parameters=actor.parameters,
            base=recipe.folder,
        )
        if actor.noise is not None:
            family = _with_noise(family, actor.noise)
        families.append(dataclasses.replace(family, name=actor.name or family.name))
    return tuple(families)


def collect_shard(plan: CollectionPlan, number: int) -> OfflineDataset:
    """Collect one shard; a function of its arguments.

    Args:
        plan: The plan.
        number: Which shard of it.
    """
    recipe = plan.recipe
    environment = recipe.environment.make()
    families = behaviors_of(recipe)
    episodes: list[dict[str, NDArray[Any]]] = []
    collected = 0
    while collected < plan.shards[number]:
        source = np.random.SeedSequence([recipe.seed, number, len(episodes)])
        episode = _rollout(environment, families, recipe.shares, source, episode_id=len(episodes))
        episodes.append(episode)
        collected += len(episode["rewards"])
    arrays = {name: np.concatenate([e[name] for e in episodes]) for name in episodes[0]}
    metadata = _metadata(plan, environment, families)
    environment.close()
    return OfflineDataset.from_arrays(arrays, metadata=metadata)


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard waits for the others."""
    return folder / f"shard-{number:05d}.h5"


def save_shard(plan: CollectionPlan, number: int, folder: Path) -> None:
    """Collect one shard and put it where the others are."""
    save_dataset(shard_path(folder, number), collect_shard(plan, number), overwrite=True)


def _rollout(
    environment: SimulatedEnvironment,
    families: tuple[BehaviorFamily, ...],
    shares: tuple[float, ...],
    source: np.random.SeedSequence,
    *,
    episode_id: int,
) -> dict[str, NDArray[Any]]:
    """One episode of a family drawn by its share, as the arrays of the file format."""
    reset_source, driver_source = source.spawn(2)
    seed = int(reset_source.generate_state(1)[0])
    generator = np.random.default_rng(driver_source)
    policy_id = int(generator.choice(len(families), p=shares))
    act = families[policy_id].draw(generator)
    low, high = environment.action_space.low, environment.action_space.high
    observation = environment.reset(seed)
    observations, actions = [observation], []
    rewards, costs, terminals, timeouts = [], [], [], []
    while True:
        action = np.array(act(observation), dtype=np.float32)
        # What np.clip does, in a quarter of its time.
        action = np.minimum(np.maximum(action, low), high)
        observation, reward, cost, terminated, truncated = environment.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(reward)
        costs.append(cost)
        terminals.append(terminated)
        timeouts.append(truncated)
        if terminated or truncated:
            break
    length = len(actions)
    seen = np.stack(observations)
    return {
        "observations": seen[:-1],
        "next_observations": seen[1:],
        "actions": np.stack(actions),
        "rewards": np.array(rewards, dtype=np.float32),
        "costs": np.array(costs, dtype=np.float32),
        "terminals": np.array(terminals, dtype=np.bool_),
        "timeouts": np.array(timeouts, dtype=np.bool_),
        "infos/episode_id": np.full(length, episode_id, dtype=np.int32),
        "infos/seed": np.full(length, seed, dtype=np.int64),
        "infos/policy_id": np.full(length, policy_id, dtype=np.int16),
    }


def _metadata(
    plan: CollectionPlan,
    environment: SimulatedEnvironment,
    families: tuple[BehaviorFamily, ...],
) -> Metadata:
    recipe = plan.recipe
    context = recipe.environment.context_of(environment)
    return Metadata(
        name=recipe.name,
        description=recipe.description,
        env_id=context.env_id,
        env_spec=environment.spec,
        env_kwargs=context.kwargs or {},
        cost_key=context.cost_key,
        max_episode_steps=context.max_episode_steps,
        observation_space=context.observation_space,
        action_space=context.action_space,
        cost_limit=recipe.cost_limit,
        cost_definition=recipe.cost_definition or f"info['{recipe.environment.cost_key}']",
        reference_scores=recipe.reference_scores,
        base_seed=recipe.seed,
        behavior_policies=tuple(
            BehaviorPolicy(
                name=family.name,
                share=share,
                description=family.description,
                checkpoint_sha256=family.checkpoint_sha256,
                parameters={"policy": actor.policy, **actor.parameters, **_trained_for(family)},
            )
            for actor, share, family in zip(recipe.behaviors, recipe.shares, families, strict=True)
        ),
        versions=dict(plan.versions),
        recipe=recipe.to_toml(),
        license=recipe.license,
        author=recipe.author,
    )


def _trained_for(family: BehaviorFamily) -> dict[str, Any]:
    """The environment of a learned behaviour; its spaces are those of this dataset."""
    if family.context is None:
        return {}
    told = family.context.to_json()
    return {"trained_for": {name: told[name] for name in told if not name.endswith("_space")}}


def _with_noise(family: BehaviorFamily, noise: ExplorationNoise) -> BehaviorFamily:
    def draw(generator: np.random.Generator) -> Controller:
        return NoisyController(family.draw(generator), noise, generator)

    return dataclasses.replace(family, draw=draw)
