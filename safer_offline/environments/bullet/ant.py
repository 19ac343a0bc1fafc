"""A sphere on four legs, each with a hip and an ankle."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safer_offline.environments.bullet.engine import Engine
from safer_offline.environments.bullet.robot import Numbers, Robot

TORQUE = 250.0
"""Of a full action, in newton metres."""
FEET = ("front_left_foot", "front_right_foot", "back_left_foot", "back_right_foot")
BENT_THE_OTHER_WAY = (3, 5)
"""The ankles, among the motors, whose range is negative."""
LOWEST = 0.26
"""The sphere has a radius of 0.25: lower, and it has fallen."""


class Ant(Robot):
    """Acts: torque of each joint.

    Observes: x, y, z; velocities; quaternion; spin; angle and speed of each joint; feet that stand.
    """

    file = "ant.xml"
    action_size = 8
    start = (0.0, 0.0, 0.75)
    speed_limit = 1.5

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        limits = [engine.getJointInfo(self.body, joint)[8:10] for joint in self.motors]
        self._middle = np.array([0.5 * (low + high) for low, high in limits])
        self._range = np.array([high - low for low, high in limits])
        links = {
            engine.getJointInfo(self.body, joint)[12].decode(): joint
            for joint in range(engine.getNumJoints(self.body))
        }
        self._feet = [links[foot] for foot in FEET]
        self._standing = np.zeros(len(FEET), dtype=np.float32)
        self._action: NDArray[Any] = np.zeros(self.action_size)

    def load(self) -> int:
        """See `Robot`."""
        engine = self.engine
        return engine.load(
            self.file,
            flags=engine.URDF_USE_SELF_COLLISION
            | engine.URDF_USE_SELF_COLLISION_EXCLUDE_ALL_PARENTS,
        )

    def act(self, action: NDArray[Any], clipped: NDArray[Any]) -> None:
        """See `Robot`."""
        # What it pays for power is told by the action as it came, beyond 1, too: so the original.
        self._action = action
        self.engine.setJointMotorControlArray(
            self.body,
            self.motors,
            self.engine.TORQUE_CONTROL,
            forces=(TORQUE * clipped).tolist(),
        )

    def look(self) -> None:
        """See `Robot`; also reads the joints, angle in [-1, 1] and scaled speed in turn, (16,)."""
        super().look()
        states = self.engine.getJointStates(self.body, self.motors)
        angles = np.array([state[0] for state in states])
        self._joints = np.empty(2 * len(states), dtype=np.float32)
        self._joints[0::2] = 2 * (angles - self._middle) / self._range
        self._joints[1::2] = [0.1 * state[1] for state in states]

    def sense(self) -> None:
        """See `Robot`."""
        self.look()
        touching = {contact[3] for contact in self.engine.getContactPoints(self.body, 0)}
        self._standing = np.array([foot in touching for foot in self._feet], dtype=np.float32)

    def observe(self) -> Numbers:
        """See `Robot`."""
        return np.concatenate(
            (
                0.1 * self.position,
                0.3 * self.velocity,
                self.orientation,
                0.15 * self.spin,
                0.5 * self._joints,
                self._standing,
            )
        )

    @property
    def alive(self) -> bool:
        """Whether its sphere is off the ground."""
        return bool(self.position[2] > LOWEST)

    def reset_joints(self, generator: np.random.Generator) -> None:
        """Hips straight, ankles at a right angle: it can stand, and random actions move it."""
        engine = self.engine
        for number, joint in enumerate(self.motors):
            noise = generator.uniform(-self.joint_noise, self.joint_noise)
            angle = noise if number % 2 == 0 else math.pi / 2 + noise
            if number in BENT_THE_OTHER_WAY:
                angle *= -1
            engine.resetJointState(self.body, joint, targetValue=angle, targetVelocity=0)
            self.free(joint)
        self._standing = np.zeros(len(FEET), dtype=np.float32)

    def own_reward(self) -> float:
        """Is paid for not falling, pays for power, torque and joints at their limits."""
        joints = self._joints
        at_limits = np.count_nonzero(np.abs(joints[0::2]) > 0.99)
        power = -2.0 * float(np.abs(self._action * joints[1::2]).mean())
        torque = -0.1 * float(np.square(self._action).mean())
        return (power + torque) + -0.1 * at_limits + (1.0 if self.alive else -1)
