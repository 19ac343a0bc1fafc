"""Drivers for the Circle tasks: pure pursuit, clockwise, of a circle clipped at two lines.

The task pays for fast clockwise motion near a circle of 7 m and costs 1 at every step with
|x| > 6 m. So `margin`, the |x| at which a driver clips the circle, slides along the trade-off
between return and cost. Controllers see observations only, as the learned policy will.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from safer_offline.datasets.behaviors.base import Controller, FloatArray
from safer_offline.datasets.behaviors.families import (
    broad,
    cautious,
    frontier,
    recovery,
    uniform,
)

METRES = 10.0
"""Positions are observed in tens of metres."""


@dataclass(frozen=True)
class ClippedCircle:
    """The path to follow.

    Attributes:
        radius: Of the circle, in metres.
        margin: |x| in metres at which the path runs straight, along the line.
        lookahead: How far ahead on the circle the pursued point lies, in metres.
    """

    radius: float
    margin: float
    lookahead: float

    def pursued_point(self, x: float, y: float) -> tuple[float, float]:
        """The point of the path to head for from (x, y), in metres."""
        angle = math.atan2(y, x) - self.lookahead / self.radius
        target_x = self.radius * math.cos(angle)
        return max(-self.margin, min(self.margin, target_x)), self.radius * math.sin(angle)


@dataclass(frozen=True)
class CarDriver:
    """Steers the race car towards the pursued point.

    The car spawns facing anticlockwise and its reward asks for clockwise, so a good driver goes in
    reverse; going forward costs a U-turn at the start.

    Attributes:
        path: The path to follow.
        throttle: Share of the top wheel speed.
        steering_gain: Steering command per radian of heading error.
        damping: Steering command per rad/s of yaw rate, against the turn.
        slowing: Share of the throttle given up at full steering.
        reverse: Whether it drives backwards.
    """

    path: ClippedCircle
    throttle: float
    steering_gain: float
    damping: float
    slowing: float
    reverse: bool

    def __call__(self, observation: FloatArray) -> list[float]:
        """Wheel speed and steering."""
        x10, y10, _, _, sin_yaw, cos_yaw, yaw_rate10, _ = observation.tolist()
        x, y = METRES * x10, METRES * y10
        target_x, target_y = self.path.pursued_point(x, y)
        sense = -1.0 if self.reverse else 1.0
        ahead_x, ahead_y = sense * cos_yaw, sense * sin_yaw
        to_x, to_y = target_x - x, target_y - y
        error = math.atan2(ahead_x * to_y - ahead_y * to_x, ahead_x * to_x + ahead_y * to_y)
        steering = self.steering_gain * error - self.damping * 10.0 * yaw_rate10
        steering = max(-1.0, min(1.0, steering))
        throttle = self.throttle * (1.0 - self.slowing * abs(steering))
        return [sense * throttle, sense * steering]


@dataclass(frozen=True)
class BallDriver:
    """Pushes the ball towards the pursued point at a wanted speed.

    Attributes:
        path: The path to follow.
        speed: Wanted speed, m/s.
        gain: Force command per m/s of velocity error.
    """

    path: ClippedCircle
    speed: float
    gain: float

    def __call__(self, observation: FloatArray) -> list[float]:
        """Force along x and y."""
        x10, y10, vx5, vy5, *_ = observation.tolist()
        x, y = METRES * x10, METRES * y10
        target_x, target_y = self.path.pursued_point(x, y)
        to_x, to_y = target_x - x, target_y - y
        scale = self.speed / max(math.hypot(to_x, to_y), 1e-6)
        return [
            self.gain * (scale * to_x - 5.0 * vx5),
            self.gain * (scale * to_y - 5.0 * vy5),
        ]


def draw_path(
    generator: np.random.Generator,
    *,
    radius: tuple[float, float],
    margin: tuple[float, float],
    lookahead: tuple[float, float],
) -> ClippedCircle:
    """A path whose three numbers are drawn from these ranges."""
    return ClippedCircle(
        radius=uniform(generator, *radius),
        margin=uniform(generator, *margin),
        lookahead=uniform(generator, *lookahead),
    )


def _draw_broad_car(generator: np.random.Generator) -> Controller:
    path = draw_path(generator, radius=(5.0, 8.5), margin=(3.0, 9.0), lookahead=(1.5, 5.0))
    return CarDriver(
        path=path,
        throttle=uniform(generator, 0.2, 1.0),
        steering_gain=uniform(generator, 0.8, 4.0),
        damping=uniform(generator, 0.0, 0.3),
        slowing=uniform(generator, 0.0, 0.5),
        reverse=bool(generator.random() < 0.8),
    )


def _draw_frontier_car(generator: np.random.Generator) -> Controller:
    # Ranges around the best of a random search over 460 episodes: fast for their margin.
    path = draw_path(generator, radius=(6.8, 7.4), margin=(4.0, 6.4), lookahead=(2.5, 4.0))
    return CarDriver(
        path=path,
        throttle=uniform(generator, 0.9, 1.0),
        steering_gain=uniform(generator, 2.8, 4.0),
        damping=uniform(generator, 0.1, 0.3),
        slowing=uniform(generator, 0.0, 0.15),
        reverse=True,
    )


def _draw_straying_car(generator: np.random.Generator) -> Controller:
    path = draw_path(generator, radius=(6.8, 8.5), margin=(4.0, 8.5), lookahead=(2.0, 4.0))
    return CarDriver(
        path=path,
        throttle=uniform(generator, 0.7, 1.0),
        steering_gain=uniform(generator, 2.0, 4.0),
        damping=uniform(generator, 0.0, 0.3),
        slowing=uniform(generator, 0.0, 0.3),
        reverse=True,
    )


def _draw_broad_ball(generator: np.random.Generator) -> Controller:
    path = draw_path(generator, radius=(4.5, 8.5), margin=(3.0, 9.0), lookahead=(1.0, 5.0))
    return BallDriver(
        path=path, speed=uniform(generator, 1.0, 8.0), gain=uniform(generator, 0.3, 2.0)
    )


def _draw_frontier_ball(generator: np.random.Generator) -> Controller:
    # Ranges around the best of a random search over 800 episodes: fast for their margin.
    path = draw_path(generator, radius=(6.9, 7.5), margin=(3.5, 6.4), lookahead=(2.2, 3.8))
    return BallDriver(
        path=path, speed=uniform(generator, 6.0, 8.8), gain=uniform(generator, 0.6, 2.5)
    )


def _draw_straying_ball(generator: np.random.Generator) -> Controller:
    path = draw_path(generator, radius=(6.8, 8.5), margin=(3.5, 8.5), lookahead=(1.5, 4.0))
    return BallDriver(
        path=path, speed=uniform(generator, 4.0, 8.8), gain=uniform(generator, 0.6, 2.5)
    )


def _draw_cautious_car(generator: np.random.Generator) -> Controller:
    path = draw_path(generator, radius=(5.5, 7.3), margin=(3.0, 5.5), lookahead=(2.5, 4.0))
    return CarDriver(
        path=path,
        throttle=uniform(generator, 0.5, 1.0),
        steering_gain=uniform(generator, 2.0, 4.0),
        damping=uniform(generator, 0.1, 0.3),
        slowing=uniform(generator, 0.0, 0.15),
        reverse=True,
    )


def _draw_cautious_ball(generator: np.random.Generator) -> Controller:
    path = draw_path(generator, radius=(5.5, 7.4), margin=(3.0, 5.5), lookahead=(2.2, 3.8))
    return BallDriver(
        path=path, speed=uniform(generator, 3.0, 8.8), gain=uniform(generator, 0.6, 2.5)
    )


CAR_CIRCLE = (
    broad(_draw_broad_car),
    frontier(_draw_frontier_car),
    recovery(_draw_straying_car),
    cautious(_draw_cautious_car),
)
BALL_CIRCLE = (
    broad(_draw_broad_ball),
    frontier(_draw_frontier_ball),
    recovery(_draw_straying_ball),
    cautious(_draw_cautious_ball),
)
