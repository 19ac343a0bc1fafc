"""The tasks that have a name here, by family; nothing here needs a simulator."""

from __future__ import annotations

import difflib
import re

from safer_offline.errors import UsageError
from safer_offline.registration import BULLET_STEP_LIMITS, VELOCITY_TASKS, bullet_id

BULLET_IDS = tuple(bullet_id(robot, task) for robot, task in BULLET_STEP_LIMITS)
"""Round a circle or straight ahead, without leaving the safe region: `environments.bullet`."""

VELOCITY_IDS = tuple(VELOCITY_TASKS)
"""Straight ahead, but not too fast: `environments.mujoco`."""

ENVIRONMENT_IDS = BULLET_IDS + VELOCITY_IDS
"""All of them."""

_BULLET, _MUJOCO = ("pybullet-arm64", "pybullet"), ("mujoco",)
"""The physics engine of the Bullet tasks has two distributions; the first is the maintained one."""


def short_name(env_id: str) -> str:
    """`SafetyHalfCheetahVelocity-v1` -> `halfcheetah-velocity`, the name the command line uses."""
    agent_and_task = re.fullmatch(r"Safety(\w+)(Circle|Run|Velocity)-v\d+", env_id)
    words = agent_and_task.groups() if agent_and_task else re.findall(r"[A-Z][a-z]+", env_id)
    return "-".join(words).lower()


def simulators_of(env_id: str) -> tuple[str, ...]:
    """The packages that simulate a task; for an environment not ours, all it may rest on."""
    if env_id in ENVIRONMENT_IDS:
        return _BULLET if env_id in BULLET_IDS else _MUJOCO
    return _BULLET + _MUJOCO


def deciding_packages(env_id: str) -> tuple[str, ...]:
    """All packages that decide what an episode looks like."""
    return *simulators_of(env_id), "gymnasium", "numpy"


def find_environment(name: str) -> str | None:
    """The task behind an id or a short name (`car-circle`), if there is one."""
    by_name = {_plain(env_id): env_id for env_id in ENVIRONMENT_IDS}
    by_name.update({_plain(short_name(env_id)): env_id for env_id in ENVIRONMENT_IDS})
    return by_name.get(_plain(name))


def resolve_environment(name: str) -> str:
    """The id of the task behind an id or a short name (`car-circle`).

    Raises:
        UsageError: If no task has that name; the message names the nearest one.
    """
    found = find_environment(name)
    if found is not None:
        return found
    known = {nick(env_id): env_id for env_id in ENVIRONMENT_IDS for nick in (short_name, str.lower)}
    nearest = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.0)[0]
    raise UsageError(
        f"unknown environment '{name}'; the nearest known one is '{known[nearest]}'. "
        f"Known: {', '.join(ENVIRONMENT_IDS)}"
    )


def _plain(name: str) -> str:
    """Without case, hyphens and underscores: people write `half-cheetah` and `halfcheetah`."""
    return name.lower().replace("_", "").replace("-", "")
