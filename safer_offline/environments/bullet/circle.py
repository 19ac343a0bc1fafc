"""Run round a circle as fast as possible, but stay between two walls that cut it."""

from __future__ import annotations

import math

import numpy as np

from safer_offline.environments.bullet.engine import Engine
from safer_offline.environments.bullet.robot import Numbers, length
from safer_offline.environments.bullet.task import Camera, Task

RADIUS = 7.0
"""Of the circle, in metres."""
X_LIMIT = 6.0
"""Costs 1 beyond, to either side."""
WALLS = 8
ROOM = 10.0
"""Lengths are observed as shares of this."""
NEAREST_START, FARTHEST_START = 2.0, 4.0
"""From the centre."""


class Circle(Task):
    """Reward: speed along the circle times distance from its centre, less for being off it."""

    integration_step = 1 / 60.0
    substeps = 6

    @staticmethod
    def build_world(engine: Engine) -> None:
        """See `Task`."""
        engine.load_ground("ground_small.urdf")
        for yaw in np.linspace(0, (WALLS - 1) / WALLS * 2 * np.pi, num=WALLS):
            turned = engine.getQuaternionFromEuler([0, 0, yaw])
            engine.load("wall.urdf", useFixedBase=True, baseOrientation=turned)

    def mark(self) -> None:
        """See `Task`."""
        for side in (-X_LIMIT, X_LIMIT):
            self.show_box(half=(0.05, 11.0, 0.9), at=np.array([side, 0.0, 0.9]))
        engine = self.engine
        disc = engine.createVisualShape(
            engine.GEOM_CYLINDER, radius=RADIUS, length=0.02, rgbaColor=(0.45, 0.6, 0.95, 1.0)
        )
        engine.createMultiBody(baseMass=0, baseVisualShapeIndex=disc)

    def reset(self, generator: np.random.Generator) -> None:
        """Somewhere in a ring, looking along the circle."""
        robot = self.robot
        robot.reset_joints(generator)
        # One draw goes unused: so the original, whose episodes these are.
        generator.uniform(-FARTHEST_START, FARTHEST_START, 2)
        while True:
            place = generator.uniform(-FARTHEST_START, FARTHEST_START, 2)
            if NEAREST_START <= length(place) <= FARTHEST_START:
                break
        robot.place(np.concatenate((place, [robot.start[2]])))
        inwards = -robot.position
        inwards /= length(inwards)
        # Not NumPy's: with AVX-512 it rounds otherwise than without, and episodes must not.
        robot.turn(math.atan2(inwards[1], inwards[0]) + np.pi / 2 + robot.heading)

    def reward(self) -> float:
        """See `Task`."""
        position, velocity = self.robot.position[:2], self.robot.velocity[:2]
        along = np.array([-velocity[1], velocity[0]])
        speed = 0.1 * position.dot(along) / (1 + abs(length(position) - RADIUS))
        return float(speed + 0.01 * self.robot.own_reward())

    def unsafe(self) -> bool:
        """See `Task`."""
        return bool(abs(self.robot.position[0]) > X_LIMIT)

    def observe(self) -> Numbers:
        """Distance from the circle, as a share of the room."""
        return np.array([length(self.robot.position[:2]) - RADIUS]) / ROOM

    def camera(self) -> Camera:
        """See `Task`."""
        return Camera(target=(0.0, -2.0, 0.0), distance=15.0, yaw=0.0, pitch=-60.0)
