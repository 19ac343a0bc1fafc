"""What an environment knows of a task: its world, how an episode begins, what it pays and costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from safer_offline.environments.bullet.engine import Engine
from safer_offline.environments.bullet.robot import Numbers, Robot


@dataclass(frozen=True, kw_only=True)
class Camera:
    """From where a task is looked at.

    Attributes:
        target: What it looks at, in metres.
        distance: From there.
        yaw: In degrees, like `pitch`.
        pitch: Down is negative.
    """

    target: tuple[float, float, float]
    distance: float
    yaw: float
    pitch: float


class Task(ABC):
    """One task in an engine, for one robot. The world is built before the robot.

    Args:
        engine: Where it happens.
        robot: Who does it; it stands there already.
    """

    integration_step: ClassVar[float]
    """Seconds between two states of the integrator."""
    substeps: ClassVar[int]
    """Of those in one step of the environment."""

    def __init__(self, engine: Engine, robot: Robot) -> None:
        self.engine = engine
        self.robot = robot
        if engine.visuals:
            self.mark()

    @staticmethod
    @abstractmethod
    def build_world(engine: Engine) -> None:
        """Add ground and walls."""

    @abstractmethod
    def mark(self) -> None:
        """Show, to a renderer alone, where it is safe."""

    @abstractmethod
    def reset(self, generator: np.random.Generator) -> None:
        """Put the robot where an episode begins; joints first."""

    @abstractmethod
    def reward(self) -> float:
        """Of the step that has just been made."""

    @abstractmethod
    def unsafe(self) -> bool:
        """Whether the step that has just been made costs 1."""

    @abstractmethod
    def camera(self) -> Camera:
        """From where to look at it now."""

    def observe(self) -> Numbers:
        """What the robot does not sense itself."""
        return np.array([])

    def show_box(self, *, half: tuple[float, float, float], at: NDArray[Any]) -> None:
        """Add a yellow box that nothing touches, for `mark`."""
        engine = self.engine
        shape = engine.createVisualShape(
            engine.GEOM_BOX, halfExtents=half, rgbaColor=(0.95, 0.63, 0.0, 0.5)
        )
        engine.createMultiBody(baseMass=0, baseVisualShapeIndex=shape, basePosition=at)
