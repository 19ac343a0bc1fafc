"""The eight Bullet tasks by name; nothing here needs a simulator."""

from __future__ import annotations

import difflib
import re

from safer_offline.errors import UsageError

ENVIRONMENT_IDS = tuple(
    f"Safety{agent}{task}-v0"
    for task in ("Circle", "Run")
    for agent in ("Car", "Ball", "Drone", "Ant")
)


def short_name(env_id: str) -> str:
    """`SafetyCarCircle-v0` -> `car-circle`, the name the command line uses."""
    words = re.findall(r"[A-Z][a-z]+", env_id)
    return "-".join(word.lower() for word in words if word != "Safety")


def find_environment(name: str) -> str | None:
    """The id of the Bullet task behind an id or a short name (`car-circle`), if there is one."""
    by_name = {short_name(env_id): env_id for env_id in ENVIRONMENT_IDS}
    by_name.update({env_id.lower(): env_id for env_id in ENVIRONMENT_IDS})
    return by_name.get(name.lower().replace("_", "-"))


def resolve_environment(name: str) -> str:
    """The id of the Bullet task behind an id or a short name (`car-circle`).

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
