"""Robot and task as a Gymnasium environment.

    import gymnasium

    environment = gymnasium.make("SafetyCarCircle-v0", render_mode="rgb_array")
    observation, info = environment.reset(seed=0)

`info["cost"]` is 1 for a step that is unsafe. An episode is a function of its seed and its actions,
bit for bit, whatever ran before and in every process.
"""

from __future__ import annotations

import operator
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from safer_offline.environments.bullet.ant import Ant
from safer_offline.environments.bullet.ball import Ball
from safer_offline.environments.bullet.car import Car
from safer_offline.environments.bullet.circle import Circle
from safer_offline.environments.bullet.drone import Drone
from safer_offline.environments.bullet.engine import Engine
from safer_offline.environments.bullet.robot import Numbers, Robot
from safer_offline.environments.bullet.run import DroneRun, Run
from safer_offline.environments.bullet.task import Task
from safer_offline.errors import SaferOfflineError, UsageError

ROBOTS: dict[str, type[Robot]] = {"Car": Car, "Ball": Ball, "Drone": Drone, "Ant": Ant}
TASKS: dict[str, type[Task]] = {"Circle": Circle, "Run": Run}
FARTHEST = 1000.0
"""Bound of the observation space; nothing comes near it."""
FRAME = (480, 360)
"""Width and height of a picture."""


class BulletEnvironment(gymnasium.Env[Numbers, NDArray[Any]]):
    """One robot with one task.

    Args:
        robot: `Car`, `Ball`, `Drone` or `Ant`.
        task: `Circle` or `Run`.
        render_mode: None, or `rgb_array` for pictures of shape (360, 480, 3); drawn by software,
            so no display is needed.

    Raises:
        UsageError: If there is no such robot, task or mode.
        MissingSimulatorError: If pybullet is not installed.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, *, robot: str, task: str, render_mode: str | None = None) -> None:
        for name, known in ((robot, ROBOTS), (task, TASKS)):
            if name not in known:
                raise UsageError(f"there is no '{name}', only {', '.join(known)}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UsageError(f"render_mode must be 'rgb_array' or nothing, not '{render_mode}'")
        self.render_mode = render_mode
        task_class = DroneRun if (robot, task) == ("Drone", "Run") else TASKS[task]
        period = task_class.integration_step * task_class.substeps
        self.metadata = {**self.metadata, "render_fps": round(1 / period)}
        self._engine: Engine | None = Engine(
            period=period, substeps=task_class.substeps, visuals=render_mode is not None
        )
        task_class.build_world(self._engine)
        self.robot = ROBOTS[robot](self._engine)
        self.robot.look()
        self.task = task_class(self._engine, self.robot)
        ones = np.ones(self.robot.action_size, dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-ones, ones, dtype=np.float32)
        bound = np.full(self._observe().shape, FARTHEST)
        self.observation_space = gymnasium.spaces.Box(-bound, bound, dtype=np.float64)
        self._beginning: int | None = None
        # All later episodes restore the state that the first one stored.
        self._start_episode(generator_of(0))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Numbers, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Which one, 0 <= seed < 2**64; None draws one, by the generator that the last
                seed began.
            options: None are known.

        Raises:
            UsageError: If the seed is no such number.
            SaferOfflineError: If the environment is closed.
        """
        if seed is not None:
            seed = checked_seed(seed)
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**32))
        self._start_episode(generator_of(seed))
        return self._observe(), {}

    def step(self, action: NDArray[Any]) -> tuple[Numbers, float, bool, bool, dict[str, Any]]:
        """Act once. `action` has shape (da,) and is clipped to [-1, 1].

        Raises:
            UsageError: If it has another shape, or a number is not finite.
            SaferOfflineError: If the environment is closed.
        """
        engine, robot = self._open_engine(), self.robot
        action = np.asarray(action)
        if action.shape != (robot.action_size,) or not np.isfinite(action).all():
            raise UsageError(
                f"an action must be {robot.action_size} finite numbers, not {action} of shape "
                f"{action.shape}"
            )
        robot.act(action, np.clip(action, -1.0, 1.0))
        engine.stepSimulation()
        robot.sense()
        reward = self.task.reward()
        info = {"cost": float(self.task.unsafe())}
        return self._observe(), reward, not robot.alive, False, info

    def render(self) -> NDArray[np.uint8] | None:
        """A picture of the present state, shape (360, 480, 3); None without `render_mode`."""
        if self.render_mode is None:
            gymnasium.logger.warn("render needs render_mode='rgb_array' when the task is made")
            return None
        engine, camera = self._open_engine(), self.task.camera()
        width, height = FRAME
        pixels = engine.getCameraImage(
            width,
            height,
            viewMatrix=engine.pybullet.computeViewMatrixFromYawPitchRoll(
                camera.target, camera.distance, camera.yaw, camera.pitch, roll=0, upAxisIndex=2
            ),
            projectionMatrix=engine.pybullet.computeProjectionMatrixFOV(
                fov=60, aspect=width / height, nearVal=0.1, farVal=100.0
            ),
            renderer=engine.ER_TINY_RENDERER,
        )[2]
        return np.reshape(np.asarray(pixels, dtype=np.uint8), (height, width, 4))[:, :, :3]

    def close(self) -> None:
        """Shut the physics server down; once is enough."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _start_episode(self, generator: np.random.Generator) -> None:
        engine, robot = self._open_engine(), self.robot
        # Motor targets survive restoreState and would act in the step below: make them the same
        # for every history. The first step consumes the external forces that go with them.
        still = np.zeros(robot.action_size)
        robot.act(still, still)
        engine.stepSimulation()
        if self._beginning is not None:
            engine.restoreState(self._beginning)
        robot.look()
        self.task.reset(generator)
        if self._beginning is None:
            self._beginning = engine.saveState()
        engine.stepSimulation()
        robot.look()

    def _observe(self) -> Numbers:
        return np.concatenate((self.robot.observe(), self.task.observe()))

    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise SaferOfflineError("this environment is closed; make another one")
        return self._engine


def generator_of(seed: int) -> np.random.Generator:
    """The generator of the episode that `seed` names: what NumPy's old `seed` makes of 32 bits."""
    # Datasets of the original's episodes name them by these seeds, so their numbers must come.
    bits = np.random.MT19937()
    state: Any = np.random.RandomState(seed % 2**32).get_state(legacy=False)
    bits.state = state
    return np.random.Generator(bits)


def checked_seed(seed: object) -> int:
    """A seed as a Python integer.

    Raises:
        UsageError: If it is none, negative, or has more than 64 bits.
    """
    try:
        number = operator.index(seed)  # type: ignore[arg-type]  # what has none is refused
    except TypeError:
        raise UsageError(f"a seed must be an integer, not {seed!r}") from None
    if not 0 <= number < 2**64:
        raise UsageError(f"a seed must be between 0 and 2**64 - 1, not {number}")
    return number
