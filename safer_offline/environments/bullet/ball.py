"""A ball on which a force acts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from safer_offline.environments.bullet.engine import Engine
from safer_offline.environments.bullet.robot import Numbers, Robot

FORCE = 3.5
"""In newtons, along each axis."""


class Ball(Robot):
    """Acts: force along x and y. Observes: x, y; their velocities; its spin."""

    file = "ball.urdf"
    action_size = 2
    start = (0.0, 0.0, 0.5)
    speed_limit = 2.5

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._action: NDArray[Any] = np.zeros(self.action_size)

    def act(self, action: NDArray[Any], clipped: NDArray[Any]) -> None:
        """See `Robot`."""
        self._action = clipped
        force = (float(clipped[0]) * FORCE, float(clipped[1]) * FORCE, 0.0)
        self.engine.applyExternalForce(
            self.body, -1, force, posObj=self.position, flags=self.engine.WORLD_FRAME
        )

    def observe(self) -> Numbers:
        """See `Robot`."""
        return np.concatenate((0.1 * self.position[:2], 0.2 * self.velocity[:2], 0.1 * self.spin))

    def own_reward(self) -> float:
        """Pays for force."""
        return -0.5 * np.linalg.norm(self._action)  # type: ignore[return-value]  # of its dtype
