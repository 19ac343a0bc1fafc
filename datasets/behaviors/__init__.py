"""Behaviour policies that collect datasets, one module a family of tasks.

A new task's policies go into a module of their own (`run.py`, `drone.py`, ...) as a tuple of
`BehaviorFamily`, and its environment id into `BEHAVIORS`; nothing else needs to change.

base        what a behaviour is: a family of controllers, and their noise
families    the kinds of behaviour that every task has
scripted/   drivers written by hand
learned/    drivers that were learned
sources     who acts, by name
"""

from __future__ import annotations

from safer_offline.datasets.behaviors.base import BehaviorFamily, Controller
from safer_offline.datasets.behaviors.learned.velocity import (
    ANT_VELOCITY,
    HALFCHEETAH_VELOCITY,
    HOPPER_VELOCITY,
)
from safer_offline.datasets.behaviors.scripted.ant import ANT_CIRCLE, ANT_RUN
from safer_offline.datasets.behaviors.scripted.circle import BALL_CIRCLE, CAR_CIRCLE
from safer_offline.datasets.behaviors.scripted.drone import DRONE_CIRCLE
from safer_offline.datasets.behaviors.scripted.run import BALL_RUN, CAR_RUN, DRONE_RUN
from safer_offline.errors import UsageError

__all__ = ["BEHAVIORS", "BehaviorFamily", "Controller", "behaviors_for"]

BEHAVIORS: dict[str, tuple[BehaviorFamily, ...]] = {
    "SafetyCarCircle-v0": CAR_CIRCLE,
    "SafetyBallCircle-v0": BALL_CIRCLE,
    "SafetyDroneCircle-v0": DRONE_CIRCLE,
    "SafetyAntCircle-v0": ANT_CIRCLE,
    "SafetyCarRun-v0": CAR_RUN,
    "SafetyBallRun-v0": BALL_RUN,
    "SafetyDroneRun-v0": DRONE_RUN,
    "SafetyAntRun-v0": ANT_RUN,
    "SafetyHalfCheetahVelocity-v1": HALFCHEETAH_VELOCITY,
    "SafetyHopperVelocity-v1": HOPPER_VELOCITY,
    "SafetyAntVelocity-v1": ANT_VELOCITY,
}


def behaviors_for(env_id: str) -> tuple[BehaviorFamily, ...]:
    """The families that can act on `env_id`, in order; a recipe says how often each does.

    Raises:
        UsageError: If nobody can drive there yet.
    """
    if env_id not in BEHAVIORS:
        raise UsageError(
            f"there are no behaviour policies for '{env_id}'; there are some for "
            f"{', '.join(BEHAVIORS)}. For an environment of your own, say who acts: --policy"
        )
    return BEHAVIORS[env_id]
