"""The ids under which Gymnasium finds our tasks, and what each of them is; loads no simulator.

    gymnasium.make("safer_offline:SafetyCarCircle-v0")

`safer_offline:` makes Gymnasium import this package, which registers them. Other packages have the
same ids: Bullet-Safety-Gym takes those of the Bullet tasks when it is imported, and
Safety-Gymnasium registers those of the velocity tasks for steps of another kind. The names
`safer_offline/SafetyCarCircle-v0` and so on are ours alone.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAMESPACE = "safer_offline"

BULLET_STEP_LIMITS: Mapping[tuple[str, str], int] = {
    ("Car", "Circle"): 300,
    ("Ball", "Circle"): 200,
    ("Drone", "Circle"): 300,
    ("Ant", "Circle"): 500,
    ("Car", "Run"): 200,
    ("Ball", "Run"): 100,
    ("Drone", "Run"): 200,
    ("Ant", "Run"): 200,
}
"""By robot and task: see `environments.bullet`."""

VELOCITY_STEP_LIMIT = 1000


@dataclass(frozen=True, kw_only=True)
class VelocityTask:
    """One of MuJoCo's runners and its speed limit: see `environments.mujoco`.

    Attributes:
        robot: Gymnasium's task.
        speed_limit: In metres a second; faster steps cost 1.
        planar: Whether the speed is that in the plane, not that along x (backwards is then fast,
            too).
        settings: Of Gymnasium's task, where they are not its defaults.
    """

    robot: str
    speed_limit: float
    planar: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


VELOCITY_TASKS: Mapping[str, VelocityTask] = {
    "SafetyHalfCheetahVelocity-v1": VelocityTask(robot="HalfCheetah-v5", speed_limit=3.2096),
    "SafetyHopperVelocity-v1": VelocityTask(robot="Hopper-v5", speed_limit=0.7402),
    "SafetyWalker2dVelocity-v1": VelocityTask(robot="Walker2d-v5", speed_limit=2.3415),
    "SafetyAntVelocity-v1": VelocityTask(
        robot="Ant-v5",
        speed_limit=2.6222,
        planar=True,
        settings={"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0},
    ),
    "SafetySwimmerVelocity-v1": VelocityTask(robot="Swimmer-v5", speed_limit=0.2282),
    "SafetyHumanoidVelocity-v1": VelocityTask(
        robot="Humanoid-v5",
        speed_limit=1.4149,
        planar=True,
        settings={"contact_cost_weight": 0.0},
    ),
}


def bullet_id(robot: str, task: str) -> str:
    """The id of a Bullet task."""
    return f"Safety{robot}{task}-v0"


def registered_id(env_id: str) -> str:
    """The name under which Gymnasium finds a task of ours, whatever else is installed."""
    return f"{NAMESPACE}/{env_id}"


def register() -> None:
    """Tell Gymnasium of our tasks; twice does no harm, and ids that others took stay theirs."""
    from gymnasium.envs.registration import WrapperSpec  # noqa: PLC0415 - it is slow to load

    for (robot, task), steps in BULLET_STEP_LIMITS.items():
        _register(
            bullet_id(robot, task),
            entry_point="safer_offline.environments.bullet.environment:BulletEnvironment",
            max_episode_steps=steps,
            kwargs={"robot": robot, "task": task},
        )
    for env_id, velocity in VELOCITY_TASKS.items():
        limit = {"speed_limit": velocity.speed_limit, "planar": velocity.planar}
        _register(
            env_id,
            entry_point="safer_offline.environments.mujoco:make_robot",
            max_episode_steps=VELOCITY_STEP_LIMIT,
            kwargs={"robot": velocity.robot, **velocity.settings},
            additional_wrappers=(
                WrapperSpec("SpeedLimit", "safer_offline.environments.mujoco:SpeedLimit", limit),
            ),
        )


def _register(env_id: str, **settings: Any) -> None:  # noqa: ANN401
    from gymnasium.envs import registration  # noqa: PLC0415

    for name in (registered_id(env_id), env_id):
        if name not in registration.registry:
            registration.register(name, **settings)


def register_with_gymnasium() -> None:
    """Register now if Gymnasium is loaded, else as soon as somebody loads it.

    Loading it here would cost every `safer-offline --help` a third of a second.
    """
    if "gymnasium" in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _WhenGymnasiumComes())


class _WhenGymnasiumComes(importlib.abc.MetaPathFinder):
    """Finds Gymnasium as anybody would, and registers when it has been loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "gymnasium":
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(fullname)
        if found is not None and found.loader is not None:
            load = found.loader.exec_module

            def load_and_register(module: ModuleType) -> None:
                load(module)
                register()

            found.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return found
