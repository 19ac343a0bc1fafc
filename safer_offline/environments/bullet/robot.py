"""What a task knows of a robot: where it is, how it acts, what it observes, what it pays itself."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from safer_offline.environments.bullet.engine import Engine

Numbers = NDArray[np.float64]


class Robot(ABC):
    """One robot in an engine.

    Args:
        engine: Where it lives; the ground must be there.

    Attributes:
        position: Of its base, in metres, shape (3,); like the next three as of the last `look`.
        orientation: Of its base, a quaternion x, y, z, w.
        velocity: Of its base, in m/s, shape (3,).
        spin: Of its base, in rad/s, shape (3,).
        motors: The joints that can turn, by index.
    """

    file: ClassVar[str]
    """Its description in `bodies/`."""
    action_size: ClassVar[int]
    start: ClassVar[tuple[float, float, float]]
    """Where it stands when nobody says otherwise."""
    heading: ClassVar[float] = 0.0
    """Angle between its x axis and the way it faces."""
    scale: ClassVar[float] = 1.0
    speed_limit: ClassVar[float]
    """In a run, in m/s."""
    joint_noise: ClassVar[float] = 0.1
    """At the start a joint is off by at most so many radians."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.body = self.load()
        self.motors = self._find_motors()

    # ---------------------------------------------------------------- what a robot says

    @abstractmethod
    def act(self, action: NDArray[Any], clipped: NDArray[Any]) -> None:
        """Set motors and forces for the next step, from (da,) numbers and the same in [-1, 1]."""

    @abstractmethod
    def observe(self) -> Numbers:
        """What its sensors say."""

    @abstractmethod
    def own_reward(self) -> float:
        """What it pays itself beside the task: for power, for staying upright."""

    @property
    def alive(self) -> bool:
        """Whether the episode may go on."""
        return True

    def load(self) -> int:
        """Add its body; its number."""
        turned = self.engine.getQuaternionFromEuler((0.0, 0.0, self.heading))
        return self.engine.load(
            self.file,
            basePosition=self.start,
            baseOrientation=turned,
            globalScaling=self.scale,
        )

    def reset_joints(self, generator: np.random.Generator) -> None:
        """Put the joints where an episode begins."""
        for joint in self.motors:
            angle = generator.uniform(-self.joint_noise, self.joint_noise)
            self.engine.resetJointState(self.body, joint, targetValue=angle, targetVelocity=0)

    def sense(self) -> None:
        """After a step: look, and whatever else must be known of it."""
        self.look()

    # ---------------------------------------------------------------- the same for all

    def look(self) -> None:
        """Read the state of the base."""
        position, self.orientation = self.engine.getBasePositionAndOrientation(self.body)
        velocity, spin = self.engine.getBaseVelocity(self.body)
        self.position, self.velocity = np.array(position), np.array(velocity)
        self.spin = np.array(spin)

    def angles(self) -> tuple[float, float, float]:
        """Roll, pitch and yaw of the base, in radians."""
        roll, pitch, yaw = self.engine.getEulerFromQuaternion(self.orientation)
        return roll, pitch, yaw

    def place(self, position: NDArray[Any]) -> None:
        """Move the base there, as it is turned."""
        # There and back again through angles: the last bits are those of the original.
        turned = self.engine.getQuaternionFromEuler(self.angles())
        self.engine.resetBasePositionAndOrientation(self.body, position, turned)
        self.look()

    def turn(self, yaw: float) -> None:
        """Turn the base about the vertical axis, where it is."""
        self.engine.resetBasePositionAndOrientation(
            self.body, self.position, self.engine.getQuaternionFromEuler([0, 0, yaw])
        )
        self.look()

    def free(self, joint: int) -> None:
        """Let a joint turn as it will."""
        self.engine.setJointMotorControl2(
            self.body,
            joint,
            self.engine.POSITION_CONTROL,
            positionGain=0.1,
            velocityGain=0.1,
            force=0,
        )

    def _find_motors(self) -> tuple[int, ...]:
        """The joints that can turn; all joints are made free of their default motors."""
        engine, motors = self.engine, []
        for joint in range(engine.getNumJoints(self.body)):
            if engine.getJointInfo(self.body, joint)[2] == engine.JOINT_REVOLUTE:
                motors.append(joint)
            self.free(joint)
        return tuple(motors)


def length(vector: NDArray[Any]) -> float:
    """Euclidean norm; `numpy.linalg.norm` to the last bit, in a third of its time."""
    return math.sqrt(vector.dot(vector))
