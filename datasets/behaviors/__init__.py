"""Behaviour policies that collect datasets, one module a family of tasks.

A new task's policies go into a module of their own (`run.py`, `drone.py`, ...) as a tuple of
`BehaviorFamily`, and its environment id into `BEHAVIORS`; nothing else needs to change.
"""

from __future__ import annotations

from safer_offline.datasets.behaviors.base import BehaviorFamily, Controller
from safer_offline.datasets.behaviors.circle import BALL_CIRCLE, CAR_CIRCLE
from safer_offline.errors import UsageError

__all__ = ["BEHAVIORS", "BehaviorFamily", "Controller", "behaviors_for"]

BEHAVIORS: dict[str, tuple[BehaviorFamily, ...]] = {
    "SafetyCarCircle-v0": CAR_CIRCLE,
    "SafetyBallCircle-v0": BALL_CIRCLE,
}


def behaviors_for(env_id: str) -> tuple[BehaviorFamily, ...]:
    """The families that collect on `env_id`; their shares sum to one.

    Raises:
        UsageError: If nobody can drive there yet.
    """
    if env_id not in BEHAVIORS:
        raise UsageError(
            f"there are no scripted behaviour policies for '{env_id}' yet; "
            f"there are some for {', '.join(BEHAVIORS)}"
        )
    return BEHAVIORS[env_id]
