"""A Bullet task as collection and evaluation drive it. Training code must never import this."""

from __future__ import annotations

import json
from typing import Any, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from safer_offline.environments.base import FloatArray, Step
from safer_offline.environments.bullet.environment import BulletEnvironment
from safer_offline.environments.tasks import resolve_environment
from safer_offline.registration import registered_id


class SafetyEnvironment:
    """One Bullet safety task whose episodes depend on nothing but seed and actions.

    Args:
        env_id: An id such as `SafetyCarCircle-v0` or a short name such as `car-circle`.
        max_episode_steps: Step limit of an episode; None takes the task's own.

    Raises:
        UsageError: If the id is unknown.
        MissingSimulatorError: If the simulator is not installed.
    """

    def __init__(self, env_id: str, *, max_episode_steps: int | None = None) -> None:
        self.env_id = resolve_environment(env_id)
        specification = gymnasium.spec(registered_id(self.env_id))
        assert specification.max_episode_steps is not None
        self.max_episode_steps = max_episode_steps or specification.max_episode_steps
        # Under the plain id, which readers of a dataset know.
        self.spec: dict[str, Any] | None = {
            **json.loads(specification.to_json()),
            "id": self.env_id,
            "namespace": None,
        }
        self._environment = BulletEnvironment(**specification.kwargs)
        self.observation_space = cast("gymnasium.spaces.Box", self._environment.observation_space)
        self.action_space = cast("gymnasium.spaces.Box", self._environment.action_space)
        self._elapsed = 0

    def reset(self, seed: int) -> FloatArray:
        """Start the episode that `seed` names. Returns the first observation, shape (ds,)."""
        observation, _ = self._environment.reset(seed=seed)
        self._elapsed = 0
        return observation.astype(np.float32)

    def step(self, action: NDArray[Any]) -> Step:
        """Act once. `action` has shape (da,) and is clipped to [-1, 1] by the task."""
        observation, reward, terminated, _, info = self._environment.step(action)
        self._elapsed += 1
        return Step(
            observation=observation.astype(np.float32),
            reward=reward,
            cost=info["cost"],
            terminated=terminated,
            truncated=not terminated and self._elapsed >= self.max_episode_steps,
        )

    def close(self) -> None:
        """Shut the physics server down."""
        self._environment.close()
