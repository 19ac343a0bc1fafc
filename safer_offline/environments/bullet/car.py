"""A car with two driven axles and two steered wheels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safer_offline.environments.bullet.engine import Engine
from safer_offline.environments.bullet.robot import Numbers, Robot

STEERED = (0, 2)
"""Joints of the hinges that hold the front wheels."""
DRIVEN = (8, 15)
"""Joints of the rings that drive a differential each."""
TOP_SPEED = 40.0
"""Of the rings, in rad/s."""
TORQUE = 20.0
STEERING_ANGLE = 0.5
"""In radians, to each side."""

GEARS = (
    # one wheel of the gear, the other, ratio, the link that carries both
    (9, 11, 1, None),
    (10, 13, -1, None),
    (9, 13, -1, None),
    (16, 18, 1, None),
    (16, 19, -1, None),
    (17, 19, -1, None),
    (1, 18, -1, 15),
    (3, 19, -1, 15),
)
"""The two differentials, and how the front one turns the wheels."""


class Car(Robot):
    """Acts: speed and steering. Observes: x, y; their velocities; sine, cosine and rate of yaw."""

    file = "car.urdf"
    action_size = 2
    start = (0.0, 0.0, 0.2)
    heading = math.pi
    scale = 3.0
    speed_limit = 1.5

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        for joint in range(engine.getNumJoints(self.body)):
            engine.setJointMotorControl2(
                self.body, joint, engine.VELOCITY_CONTROL, targetVelocity=0, force=0
            )
        for one, other, ratio, carrier in GEARS:
            gear = engine.createConstraint(
                self.body,
                one,
                self.body,
                other,
                jointType=engine.JOINT_GEAR,
                jointAxis=[0, 1, 0],
                parentFramePosition=[0, 0, 0],
                childFramePosition=[0, 0, 0],
            )
            carried = {} if carrier is None else {"gearAuxLink": carrier}
            engine.changeConstraint(gear, gearRatio=ratio, maxForce=10000, **carried)

    def act(self, action: NDArray[Any], clipped: NDArray[Any]) -> None:
        """See `Robot`."""
        engine = self.engine
        speed, angle = TOP_SPEED * clipped[0], STEERING_ANGLE * clipped[1]
        for motor in DRIVEN:
            engine.setJointMotorControl2(
                self.body, motor, engine.VELOCITY_CONTROL, targetVelocity=speed, force=TORQUE
            )
        for hinge in STEERED:
            engine.setJointMotorControl2(
                self.body, hinge, engine.POSITION_CONTROL, targetPosition=angle
            )

    def observe(self) -> Numbers:
        """See `Robot`."""
        yaw = self.angles()[2]
        turning = (np.sin(yaw), np.cos(yaw), 0.1 * self.spin[2])
        return np.concatenate((0.1 * self.position[:2], self.velocity[:2], turning))

    def own_reward(self) -> float:
        """Pays for nothing."""
        return 0.0
