"""Where in its observations the place of a robot stands, for pictures of where it went."""

from __future__ import annotations

from dataclasses import dataclass

from safer_offline.environments.tasks import BULLET_IDS


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Two coordinates of an observation that are a place, and where it is unsafe there.

    Attributes:
        x: Index of the coordinate to the right.
        y: Index of the other.
        unit: One of the observed numbers in units of the picture.
        names: What the axes say.
        limits: Unsafe beyond, to either side, of x and of y; None where no line tells.
    """

    x: int = 0
    y: int = 1
    unit: float = 1.0
    names: tuple[str, str]
    limits: tuple[float | None, float | None] = (None, None)


def plane_of(env_id: str) -> Plane | None:
    """The plane of a task; None of one that nobody here knows.

    The Bullet tasks observe a tenth of the place in metres first (`environments.bullet`).
    """
    if env_id not in BULLET_IDS:
        return None
    # As in `environments.bullet.circle` and `run`, which this must not load: they simulate.
    limits = (6.0, None) if "Circle" in env_id else (None, 2.0)
    return Plane(unit=10.0, names=("x, m", "y, m"), limits=limits)
