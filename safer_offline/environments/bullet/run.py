"""Run along x as fast as allowed, between two lines."""

from __future__ import annotations

import numpy as np

from safer_offline.environments.bullet.engine import Engine
from safer_offline.environments.bullet.robot import Robot, length
from safer_offline.environments.bullet.task import Camera, Task

Y_LIMIT = 2.0
"""Costs 1 beyond, to either side; so does more than the robot's speed limit."""
GOAL = np.array([1e3, 0.0])
"""So far away that nobody arrives."""
PROGRESS = 60.0
"""Reward of one metre towards the goal."""
START = 0.01
"""The robot stands at most so far from the origin, along x and y."""


class Run(Task):
    """Reward: progress along x, and what the robot pays itself."""

    integration_step = 1 / 120.0
    substeps = 4

    def __init__(self, engine: Engine, robot: Robot) -> None:
        super().__init__(engine, robot)
        self._potential = 0.0

    @staticmethod
    def build_world(engine: Engine) -> None:
        """See `Task`."""
        engine.load_ground("ground_large.urdf")

    def mark(self) -> None:
        """See `Task`."""
        for side in (-Y_LIMIT, Y_LIMIT):
            self.show_box(half=(60.0, 0.05, 0.3), at=np.array([50.0, side, 0.3]))

    def reset(self, generator: np.random.Generator) -> None:
        """At the origin, almost, looking along x."""
        self.robot.reset_joints(generator)
        place = np.array(self.robot.start)
        place[:2] = generator.uniform(-START, START, 2)
        self.robot.place(place)
        self._potential = self._measure_potential()

    def reward(self) -> float:
        """See `Task`."""
        before, self._potential = self._potential, self._measure_potential()
        return self._potential - before + float(self.robot.own_reward())

    def unsafe(self) -> bool:
        """See `Task`."""
        robot = self.robot
        return bool(
            abs(robot.position[1]) > Y_LIMIT or length(robot.velocity[:2]) > robot.speed_limit
        )

    def camera(self) -> Camera:
        """See `Task`."""
        x = float(self.robot.position[0])
        return Camera(target=(x + 1.0, 0.0, 0.3), distance=6.0, yaw=-65.0, pitch=-25.0)

    def _measure_potential(self) -> float:
        return -length(self.robot.position[:2] - GOAL) * PROGRESS


class DroneRun(Run):
    """The same for a robot that must be steered twice as often."""

    substeps = 2
