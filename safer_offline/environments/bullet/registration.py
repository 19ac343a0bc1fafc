"""The ids under which Gymnasium finds the Bullet tasks; needs no simulator.

Gymnasium calls `register` when it is imported (entry point `gymnasium.envs`), so that

    gymnasium.make("SafetyCarCircle-v0")

needs no other import. Where Bullet-Safety-Gym is installed as well and came first, its ids stay its
own, and ours have the name `safer_offline/SafetyCarCircle-v0` alone.
"""

from __future__ import annotations

import gymnasium

NAMESPACE = "safer_offline"

STEP_LIMITS = {
    ("Car", "Circle"): 300,
    ("Ball", "Circle"): 200,
    ("Drone", "Circle"): 300,
    ("Ant", "Circle"): 500,
    ("Car", "Run"): 200,
    ("Ball", "Run"): 100,
    ("Drone", "Run"): 200,
    ("Ant", "Run"): 200,
}


def register() -> None:
    """Tell Gymnasium of the tasks; twice does no harm."""
    for (robot, task), steps in STEP_LIMITS.items():
        env_id = f"Safety{robot}{task}-v0"
        for name in (registered_id(env_id), env_id):
            if name not in gymnasium.registry:
                gymnasium.register(
                    name,
                    entry_point="safer_offline.environments.bullet.environment:BulletEnvironment",
                    max_episode_steps=steps,
                    kwargs={"robot": robot, "task": task},
                )


def registered_id(env_id: str) -> str:
    """The name under which Gymnasium finds our task, whatever else is installed."""
    return f"{NAMESPACE}/{env_id}"
