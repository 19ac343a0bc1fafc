"""MuJoCo's runners with a speed limit: Gymnasium's own tasks, each with a cost for going too fast.

A robot is paid for running along x, and costs 1 for every step in which it is faster than its
limit. The limits, and whether the speed is that along x or that in the plane, are those of the
velocity tasks, version 1, of Safety-Gymnasium (Ji et al., NeurIPS 2023; in its source
`tasks/safe_velocity`): half of what an unconstrained PPO reached in ten million steps. Bodies,
rewards and ends of episodes are Gymnasium's version 5. Safety-Gymnasium builds on version 4, whose
Ant and Humanoid pay nothing for contact forces, and whose Ant does not observe them; so it is here.

    gymnasium.make("safer_offline:SafetyAntVelocity-v1")

The limits themselves stand beside the ids, in `safer_offline.registration`.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from safer_offline.errors import MissingSimulatorError, UsageError

Numbers = np.ndarray[Any, np.dtype[np.float64]]


class SpeedLimit(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds `info["cost"]`: 1 for a step whose mean speed is above the limit, else 0.

    Args:
        env: A task whose `info` holds `x_velocity`, and `y_velocity` if the speed is planar.
        speed_limit: See `registration.VelocityTask`.
        planar: See `registration.VelocityTask`.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], *, speed_limit: float, planar: bool = False
    ) -> None:
        RecordConstructorArgs.__init__(self, speed_limit=speed_limit, planar=planar)
        super().__init__(env)
        self._speed_limit = speed_limit
        self._planar = planar

    def step(self, action: Numbers) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act once.

        Raises:
            UsageError: If the action has another shape than the space, or a number is not finite.
        """
        action = np.asarray(action)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise UsageError(
                f"an action must be finite numbers of shape {self.action_space.shape}, not {action}"
            )
        observation, reward, terminated, truncated, info = self.env.step(action)
        speed = info["x_velocity"]
        if self._planar:
            speed = math.hypot(speed, info["y_velocity"])
        cost = float(speed > self._speed_limit)
        return observation, float(reward), terminated, truncated, {**info, "cost": cost}


def make_robot(robot: str, **settings: Any) -> gymnasium.Env[Any, Any]:  # noqa: ANN401
    """Gymnasium's task alone, without step limit and cost.

    Args:
        robot: Such as `Ant-v5`.
        settings: Of that task, `render_mode` among them.

    Raises:
        MissingSimulatorError: If MuJoCo is missing, or is not what that task needs.
    """
    require_mujoco()
    with _building_quietly():
        return gymnasium.make(robot, disable_env_checker=True, **settings).unwrapped


def require_mujoco() -> None:
    """Refuse early, and say what to install, where the tasks cannot work.

    Raises:
        MissingSimulatorError: See `make_robot`.
    """
    remedy = 'Remedy: pip install "safer-offline[mujoco]"'
    try:
        simulator = importlib.import_module("mujoco")
        importlib.import_module("imageio")  # which Gymnasium's robots load, even if unseen
    except ImportError as error:
        raise MissingSimulatorError(
            f"the velocity tasks need the package '{error.name}' ({error}). {remedy}"
        ) from error
    if not hasattr(simulator, "MjModel"):
        raise MissingSimulatorError(
            f"the installed package 'mujoco' is no simulator: it has no MjModel. {remedy}"
        )
    if "Ant-v5" not in gymnasium.registry:
        raise MissingSimulatorError(
            "the velocity tasks need Gymnasium 1.0 or newer, with its -v5 robots; version "
            f"{gymnasium.__version__} is installed. {remedy}"
        )


@contextlib.contextmanager
def _building_quietly() -> Iterator[None]:
    """Hide what MuJoCo has against Gymnasium's robots: that they use what it will drop some day.

    It would say so in every process, and in a file `MUJOCO_LOG.TXT` in the current folder.
    """
    simulator = importlib.import_module("mujoco")
    before = simulator.get_mju_user_warning()
    simulator.set_mju_user_warning(
        lambda text: None if "deprecated" in text else warnings.warn(text, stacklevel=2)
    )
    try:
        yield
    finally:
        simulator.set_mju_user_warning(before)
