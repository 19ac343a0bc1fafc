"""What collection and evaluation know of an environment: seeds in, steps with a cost out."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


class Step(NamedTuple):
    """What one step of one environment returned."""

    observation: FloatArray
    reward: float
    cost: float
    terminated: bool
    truncated: bool


class SimulatedEnvironment(Protocol):
    """One environment with a cost, as collection and evaluation drive it."""

    env_id: str
    """Its name in metadata: the id of a task of ours, a Gymnasium id, or `module:factory`."""
    spec: dict[str, Any] | None
    """Gymnasium's specification as JSON, if it has one."""
    max_episode_steps: int
    observation_space: gymnasium.spaces.Box
    action_space: gymnasium.spaces.Box

    def reset(self, seed: int) -> FloatArray:
        """Start the episode that `seed` names; the first observation, shape (ds,)."""
        ...

    def step(self, action: NDArray[Any]) -> Step:
        """Act once. `action` has shape (da,) and is clipped to the bounds of the space."""
        ...

    def close(self) -> None:
        """Release what the simulator holds."""
        ...
