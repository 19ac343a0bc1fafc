"""Ants, whose gait nobody can script: it was learned on the Run task, and steers on both.

One packaged actor file holds networks from several moments of one training on Ant-Run, each able to
walk for any penalty on cost; there that is all. On the Circle task the same gait follows the paths
of the scripted drivers. An ant that sees the world turned so that its target lies straight ahead
believes that it runs down the lane it was trained in.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

import numpy as np

from safer_offline.datasets.behaviors.base import BehaviorFamily, Controller, FloatArray
from safer_offline.datasets.behaviors.families import Draw, broad, cautious, frontier, recovery
from safer_offline.datasets.behaviors.learned.families import packaged_drivers
from safer_offline.datasets.behaviors.scripted.circle import METRES, ClippedCircle, draw_path

GAIT = "ant-run"
GAIT_SHA256 = "9f916c0126b7ce4ff2e79ed6e44df14fb1751e1eec3949b24905188e11390bad"
GAIT_OBSERVATION_SIZE = 33
"""Numbers that Ant-Run observes; Ant-Circle adds the distance to its track."""


@dataclass(frozen=True)
class AntDriver:
    """Walks towards the pursued point of a path.

    Attributes:
        path: The path to follow.
        gait: Walks along x when it sees what Ant-Run observes.
    """

    path: ClippedCircle
    gait: Controller

    def __call__(self, observation: FloatArray) -> list[float]:
        """Torques of the eight joints."""
        x, y = (METRES * number for number in observation[:2].tolist())
        target_x, target_y = self.path.pursued_point(x, y)
        heading = math.atan2(target_y - y, target_x - x)
        return self.gait(as_in_a_lane(observation, heading))


def as_in_a_lane(observation: FloatArray, heading: float) -> FloatArray:
    """What an ant would observe at the start of Ant-Run's lane, if that ran along `heading`.

    Args:
        observation: Of Ant-Circle: position (3), velocity (3), quaternion (4), angular velocity
            (3), then what does not depend on directions.
        heading: Angle from the x axis, in radians.
    """
    _, _, z, vx, vy, vz, qx, qy, qz, qw, wx, wy = observation[:12].tolist()
    cosine, sine = math.cos(heading), math.sin(heading)
    # The world turns by -heading; a quaternion takes half the angle.
    turn_w, turn_z = math.cos(heading / 2), -math.sin(heading / 2)
    x, y = turn_w * qx - turn_z * qy, turn_w * qy + turn_z * qx
    z_part, w = turn_w * qz + turn_z * qw, turn_w * qw - turn_z * qz
    sign = -1.0 if w < 0 else 1.0  # both name the same orientation; the gait knows this one
    seen = observation[:GAIT_OBSERVATION_SIZE].copy()
    seen[:12] = (
        0.0,
        0.0,
        z,
        cosine * vx + sine * vy,
        cosine * vy - sine * vx,
        vz,
        sign * x,
        sign * y,
        sign * z_part,
        sign * w,
        cosine * wx + sine * wy,
        cosine * wy - sine * wx,
    )
    return seen


_walkers = functools.partial(packaged_drivers, GAIT, sha256=GAIT_SHA256)
"""Draws gaits from some snapshots of the packaged actor file."""


def _on_paths(
    walkers: Draw,
    *,
    radius: tuple[float, float],
    margin: tuple[float, float],
    lookahead: tuple[float, float],
) -> Draw:
    """Draws gaits that follow a path, whose three numbers are drawn from these ranges."""

    def draw(generator: np.random.Generator) -> Controller:
        path = draw_path(generator, radius=radius, margin=margin, lookahead=lookahead)
        return AntDriver(path=path, gait=walkers(generator))

    return draw


def _learned(family: BehaviorFamily, description: str) -> BehaviorFamily:
    return dataclasses.replace(family, description=description, checkpoint_sha256=GAIT_SHA256)


ANT_RUN = (
    _learned(
        broad(
            _walkers(
                snapshots=(50_000, 100_000, 200_000, 250_000),
                penalties=(0.0, 4.0),
                deterministic_share=0.25,
            )
        ),
        "early to late networks, from speeding to careful, noisy, with changes of driver and "
        "bursts of random actions",
    ),
    _learned(
        frontier(
            _walkers(
                snapshots=(200_000, 250_000),
                penalties=(2.0, 4.0),
                deterministic_share=0.8,
            ),
            noise=0.1,
        ),
        "late networks, as fast as the speed limit allows or just above it",
    ),
    _learned(
        recovery(
            _walkers(
                snapshots=(200_000, 250_000),
                penalties=(0.0, 4.0),
                deterministic_share=0.5,
            ),
            switch_every=40.0,
        ),
        "late networks that change every one or two seconds between speeding and careful",
    ),
    _learned(
        cautious(
            _walkers(
                snapshots=(200_000,),
                penalties=(3.5, 4.0),
                deterministic_share=1.0,
            ),
            noise=0.05,
        ),
        "networks that keep below the speed limit most of the time",
    ),
)

# At the Circle task's ten decisions a second, instead of thirty, the last snapshot falls least, and
# least of all with a medium penalty (320 random episodes).
ANT_CIRCLE = (
    _learned(
        broad(
            _on_paths(
                _walkers(
                    snapshots=(100_000, 200_000, 250_000),
                    penalties=(0.0, 4.0),
                    deterministic_share=0.5,
                ),
                radius=(5.0, 8.5),
                margin=(3.0, 9.0),
                lookahead=(2.0, 5.0),
            ),
            noise=0.2,
            burst_rate=0.01,
        ),
        "early to late gaits on paths from far inside to far outside the limit, noisy, with "
        "changes of path and bursts of random actions",
    ),
    _learned(
        frontier(
            _on_paths(
                _walkers(
                    snapshots=(250_000,),
                    penalties=(0.5, 3.0),
                    deterministic_share=0.9,
                ),
                radius=(6.8, 7.4),
                margin=(4.2, 6.2),
                lookahead=(2.5, 4.0),
            ),
            noise=0.05,
        ),
        "late gaits as fast as the margin allows, from well inside the limit to just outside",
    ),
    _learned(
        recovery(
            _on_paths(
                _walkers(
                    snapshots=(200_000, 250_000),
                    penalties=(0.5, 3.0),
                    deterministic_share=0.8,
                ),
                radius=(6.8, 8.5),
                margin=(4.0, 8.5),
                lookahead=(2.5, 4.0),
            ),
            noise=0.05,
            switch_every=60.0,
        ),
        "late gaits that take another path every six seconds, inside or outside the limit",
    ),
    _learned(
        cautious(
            _on_paths(
                _walkers(
                    snapshots=(200_000, 250_000),
                    penalties=(1.0, 3.0),
                    deterministic_share=1.0,
                ),
                radius=(5.5, 7.3),
                margin=(3.5, 4.7),
                lookahead=(2.5, 4.0),
            ),
            noise=0.05,
        ),
        "late gaits that keep their distance from the limit",
    ),
)
