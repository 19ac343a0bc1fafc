"""A task as the learner of behaviours sees it, and how well an actor does in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.behavior_training.config import BehaviorTrainingConfig
from safer_offline.datasets.behaviors.learned.actor_files import (
    ActorInfo,
    ConditionedActor,
    Score,
    Snapshot,
    penalty_scale,
)
from safer_offline.datasets.behaviors.learned.families import ActorController
from safer_offline.environments.base import SimulatedEnvironment
from safer_offline.environments.tasks import deciding_packages
from safer_offline.machine import installed_versions
from safer_offline.progress import progress_bar

FloatArray = NDArray[np.float32]


class PenalizedEnvironment(gymnasium.Env[FloatArray, FloatArray]):
    """A task whose reward is less a penalty for cost, drawn for each episode and observed.

    Args:
        task: The environment.
        config: Penalties and shaping.
        seed: Of the penalties and of the episodes' starts. What `reset` is told is ignored, so that
            the episodes do not depend on how the learner seeds.
    """

    def __init__(
        self, task: SimulatedEnvironment, config: BehaviorTrainingConfig, *, seed: int
    ) -> None:
        self.task = task
        self._config = config
        self._scale = penalty_scale(config.penalties)
        self._generator = np.random.default_rng(seed)
        size = task.observation_space.shape[0]
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size + 1,), np.float32)
        self.action_space = gymnasium.spaces.Box(
            task.action_space.low.astype(np.float32), task.action_space.high.astype(np.float32)
        )
        self._penalty = 0.0
        self._off_track = 0.0
        self._totals = np.zeros(3)  # return, cost, length

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start an episode under a penalty of its own."""
        self._penalty = float(self._generator.choice(self._config.penalties))
        observation = self.task.reset(int(self._generator.integers(2**31)))
        self._off_track = _distance_to_track(observation)
        self._totals[:] = 0.0
        return self._with_penalty(observation), {}

    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Act; the end of an episode reports its penalty and totals as `info["score"]`."""
        step = self.task.step(action)
        self._totals += step.reward, step.cost, 1.0
        config, reward = self._config, step.reward - self._penalty * step.cost
        if config.approach_reward:
            before, self._off_track = self._off_track, _distance_to_track(step.observation)
            reward += config.approach_reward * (before - self._off_track)
        if not step.terminated:
            reward += config.alive_reward
        reward *= config.reward_scale
        ended = step.terminated or step.truncated
        info = {"score": (self._penalty, *self._totals.tolist())} if ended else {}
        observation = self._with_penalty(step.observation)
        return observation, reward, step.terminated, step.truncated, info

    def close(self) -> None:
        """Close the task."""
        self.task.close()

    def describe(self, training: Mapping[str, Any]) -> ActorInfo:
        """What the actor file will tell of a training with these settings."""
        return ActorInfo(
            env_id=self.task.env_id,
            observation_size=self.task.observation_space.shape[0],
            action_low=tuple(self.task.action_space.low.tolist()),
            action_high=tuple(self.task.action_space.high.tolist()),
            hidden_sizes=self._config.hidden_sizes,
            penalties=self._config.penalties,
            snapshots=tuple(Snapshot(steps=steps) for steps in self._config.snapshot_steps),
            training=training,
            versions=_package_versions(self.task.env_id),
        )

    def _with_penalty(self, observation: FloatArray) -> FloatArray:
        scaled = np.float32(self._penalty / self._scale)
        return np.append(observation, scaled).astype(np.float32)


def measured(
    actors: Sequence[ConditionedActor],
    task: SimulatedEnvironment,
    *,
    episodes: int,
    progress: bool = True,
) -> list[ConditionedActor]:
    """The same actors, knowing how each does under each penalty when it acts by its mean.

    Args:
        actors: Of one training.
        task: Where they drive; the episodes' starts are the same for all.
        episodes: How many each drives under each penalty.
        progress: Whether to show a progress bar.
    """
    info = actors[0].info
    total = len(actors) * len(info.penalties) * episodes
    snapshots = []
    with progress_bar(f"measure {info.env_id}", total=total, enabled=progress) as display:
        for actor in actors:
            scores = []
            for penalty in info.penalties if episodes else ():
                act = ActorController(actor, penalty=penalty, generator=None)
                totals = []
                for episode in range(episodes):
                    totals.append(_drive(task, act, seed=episode))
                    display.advance()
                mean = [float(f"{number:.6g}") for number in np.mean(totals, axis=0)]
                scores.append(
                    Score(
                        penalty=penalty,
                        episodes=episodes,
                        mean_return=mean[0],
                        mean_cost=mean[1],
                        mean_length=mean[2],
                    )
                )
            snapshots.append(Snapshot(steps=actor.snapshot.steps, scores=tuple(scores)))
    info = dataclasses.replace(info, snapshots=tuple(snapshots))
    return [
        dataclasses.replace(actor, info=info, snapshot=snapshot)
        for actor, snapshot in zip(actors, snapshots, strict=True)
    ]


def _drive(task: SimulatedEnvironment, act: ActorController, *, seed: int) -> NDArray[Any]:
    """Return, cost and length of one episode."""
    observation, totals, ended = task.reset(seed), np.zeros(3), False
    while not ended:
        step = task.step(np.array(act(observation), dtype=np.float32))
        observation, ended = step.observation, step.terminated or step.truncated
        totals += step.reward, step.cost, 1.0
    return totals


def _distance_to_track(observation: FloatArray) -> float:
    """In metres; Circle tasks observe it last, in tens of metres."""
    return abs(10 * float(observation[-1]))


def _package_versions(env_id: str) -> dict[str, str]:
    """Of everything that decides what a training with a given seed gives."""
    packages = "safer-offline", "stable-baselines3", "torch", *deciding_packages(env_id)
    return installed_versions(packages)
