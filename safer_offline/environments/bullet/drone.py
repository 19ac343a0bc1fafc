"""A quadcopter: four rotors, whose thrust is computed here, because Bullet knows no air.

Figures of the AscTec Hummingbird; the law of thrust is that of G. Staples ("Propeller static and
dynamic thrust calculation", 2013), as PyRoboLearn and Bullet-Safety-Gym use it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safer_offline.environments.bullet.engine import GRAVITY, Engine
from safer_offline.environments.bullet.robot import Numbers, Robot, length

RADIUS = 0.14
AREA = np.pi * RADIUS**2
PITCH = 4.7 * 0.0254
"""Metres that a rotor would advance in one turn."""
MASS = 1.420
AIR_DENSITY = 1.225
K1, K2 = 1.0 / 3.29546, 1.5
"""Empirical constants of the law of thrust."""
ROTATION = np.array([1, -1, 1, -1])
"""Counter-clockwise and clockwise."""
AUTHORITY = 0.1
"""A full action makes a rotor faster or slower by this share of hovering."""
MOTOR_FORCE = 23.444
JOINT_SPEED = 1000.0
"""Bullet would clamp at 100 rad/s."""


class Drone(Robot):
    """Acts: speed of each rotor. Observes: x, y, z; velocities; quaternion; spin; rotor speeds."""

    file = "drone.urdf"
    action_size = 4
    start = (0.0, 0.0, 0.17)
    scale = 2.0
    speed_limit = 1.5

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        for motor in self.motors:
            engine.changeDynamics(self.body, motor, maxJointVelocity=JOINT_SPEED)
        self._hovering = ROTATION * hovering_speed()
        self._links_on_ground = 0

    def act(self, action: NDArray[Any], clipped: NDArray[Any]) -> None:
        """See `Robot`."""
        engine = self.engine
        targets = self._hovering * (1 + AUTHORITY * clipped)
        axes = np.array(engine.getMatrixFromQuaternion(self.orientation)).reshape((3, 3))
        rising = self.velocity.dot(axes[:, 2].copy())
        for motor, direction, speed in zip(self.motors, ROTATION, targets, strict=True):
            engine.setJointMotorControl2(
                self.body,
                motor,
                engine.VELOCITY_CONTROL,
                targetVelocity=speed,
                force=MOTOR_FORCE,
            )
            engine.applyExternalForce(
                self.body,
                motor,
                (0.0, 0.0, thrust(speed * direction, rising)),
                posObj=(0.0, 0.0, 0.0),
                flags=engine.LINK_FRAME,
            )

    def sense(self) -> None:
        """See `Robot`."""
        self.look()
        touching = self.engine.getContactPoints(self.body, 0)
        self._links_on_ground = len({contact[3] for contact in touching})

    def observe(self) -> Numbers:
        """See `Robot`."""
        engine = self.engine
        quaternion = engine.getQuaternionFromEuler(self.angles())
        states = engine.getJointStates(self.body, self.motors)
        speeds = np.array([state[1] for state in states])
        return np.concatenate(
            (
                0.1 * self.position,
                0.2 * self.velocity,
                quaternion,
                0.1 * self.spin,
                2.5e-3 * (speeds - self._hovering),
            )
        )

    @property
    def alive(self) -> bool:
        """Whether it is not upside down."""
        roll, pitch, _ = self.angles()
        return abs(pitch) <= 0.5 * np.pi and abs(roll) <= 0.5 * np.pi

    def own_reward(self) -> float:
        """Is paid for staying upright, pays for spinning and for touching the ground."""
        upright = 1.0 if self.alive else -10.0
        return upright - 0.01 * length(self.spin) ** 2 - self._links_on_ground


def thrust(rotor_speed: float, rising: float) -> float:
    """Force of one rotor in newtons, at a speed in rad/s, rising along its axis at so many m/s."""
    advance = rotor_speed / (2 * np.pi) * PITCH
    diameter = (4.0 * AREA / np.pi) ** 0.5
    return float(
        AIR_DENSITY * AREA * (advance**2 - advance * rising) * (K1 * diameter / PITCH) ** K2
    )


def hovering_speed() -> float:
    """Speed in rad/s at which four rotors carry the drone."""
    weight = MASS * -GRAVITY / 4.0
    lift = weight / (AIR_DENSITY * AREA) * (PITCH / (K1 * 2.0 * RADIUS)) ** K2
    return float((2 * math.pi / PITCH) * lift**0.5)
