"""Drivers for the Run tasks: along a lane in the direction of x, at a wanted speed.

The task pays for the way made along x and costs 1 at every step with |y| > 2 m or a planar speed
above 2.5 m/s (ball) or 1.5 m/s (car, drone). Wanted speed and lane slide along the trade-off
between return and cost, and each has a margin of its own. Controllers see observations only, as
the learned policy will.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from safer_offline.datasets.behaviors.base import Controller, FloatArray
from safer_offline.datasets.behaviors.families import (
    Draw,
    broad,
    cautious,
    frontier,
    recovery,
    uniform,
)
from safer_offline.datasets.behaviors.scripted.circle import METRES
from safer_offline.datasets.behaviors.scripted.drone import VELOCITY, FlightController

Range = tuple[float, float]

WHEELS_PER_SPEED = 0.27
"""Wheel command that keeps the car at 1 m/s, per m/s."""


@dataclass(frozen=True)
class Lane:
    """The path to follow: a sine around a line in the direction of x.

    Attributes:
        offset: y of the line, in metres.
        sway: Amplitude of the sine, in metres.
        wavelength: Of the sine, in metres.
        phase: Of the sine at x = 0, in radians.
        lookahead: How far ahead the pursued point lies along x, in metres.
    """

    offset: float
    sway: float
    wavelength: float
    phase: float
    lookahead: float

    def direction(self, x: float, y: float) -> tuple[float, float]:
        """The unit vector from (x, y), in metres, to the pursued point."""
        turn = 2.0 * math.pi * (x + self.lookahead) / self.wavelength + self.phase
        aside = self.offset + self.sway * math.sin(turn) - y
        distance = math.hypot(self.lookahead, aside)
        return self.lookahead / distance, aside / distance


@dataclass(frozen=True)
class BallRunner:
    """Pushes the ball along a lane at a wanted speed.

    Attributes:
        lane: The path to follow.
        speed: Wanted speed, m/s.
        gain: Force command per m/s of velocity error.
    """

    lane: Lane
    speed: float
    gain: float

    def __call__(self, observation: FloatArray) -> list[float]:
        """Force along x and y."""
        x10, y10, vx5, vy5, *_ = observation.tolist()
        along, across = self.lane.direction(METRES * x10, METRES * y10)
        force_x = self.gain * (self.speed * along - VELOCITY * vx5)
        force_y = self.gain * (self.speed * across - VELOCITY * vy5)
        # Shrunk and not clipped, so that a saturated push still points the right way.
        shrink = 1.0 / max(1.0, abs(force_x), abs(force_y))
        return [shrink * force_x, shrink * force_y]


@dataclass(frozen=True)
class CarRunner:
    """Drives the race car along a lane at a wanted speed.

    The car spawns facing away from where its reward asks it to go, so a good driver goes in
    reverse; going forward costs a U-turn at the start.

    Attributes:
        lane: The path to follow.
        speed: Wanted speed, m/s.
        speed_gain: Wheel command per m/s of speed error.
        steering_gain: Steering command per radian of heading error.
        damping: Steering command per rad/s of yaw rate, against the turn.
        reverse: Whether it drives backwards.
    """

    lane: Lane
    speed: float
    speed_gain: float
    steering_gain: float
    damping: float
    reverse: bool

    def __call__(self, observation: FloatArray) -> list[float]:
        """Wheel speed and steering."""
        x10, y10, vx, vy, sin_yaw, cos_yaw, yaw_rate10 = observation.tolist()
        along, across = self.lane.direction(METRES * x10, METRES * y10)
        sense = -1.0 if self.reverse else 1.0
        ahead_x, ahead_y = sense * cos_yaw, sense * sin_yaw
        error = math.atan2(ahead_x * across - ahead_y * along, ahead_x * along + ahead_y * across)
        steering = self.steering_gain * error - self.damping * 10.0 * yaw_rate10
        steering = max(-1.0, min(1.0, steering))
        # The limit is on the speed over ground, so that is what is controlled, slip and all.
        speed = math.copysign(math.hypot(vx, vy), ahead_x * vx + ahead_y * vy)
        throttle = WHEELS_PER_SPEED * self.speed + self.speed_gain * (self.speed - speed)
        return [sense * max(-1.0, min(1.0, throttle)), sense * steering]


@dataclass(frozen=True)
class DroneRunner:
    """Flies along a lane at a wanted speed.

    Attributes:
        lane: The path to follow.
        speed: Wanted speed, m/s.
        height: Wanted height, m.
        flight: How it gets there.
    """

    lane: Lane
    speed: float
    height: float
    flight: FlightController

    def __call__(self, observation: FloatArray) -> list[float]:
        """Rotor commands."""
        seen = observation.tolist()
        along, across = self.lane.direction(METRES * seen[0], METRES * seen[1])
        return self.flight.rotor_commands(
            seen, self.speed * along, self.speed * across, self.height
        )


@dataclass(frozen=True)
class LaneRanges:
    """Where the lanes of a family lie; everything in metres, each drawn uniformly.

    Attributes:
        offset: Largest distance of a lane's line from y = 0, on either side.
        sway: Largest amplitude around it.
        lookahead: Shortest and longest lookahead.
    """

    offset: float
    sway: float
    lookahead: Range

    def draw(self, generator: np.random.Generator) -> Lane:
        """A lane."""
        return Lane(
            offset=uniform(generator, -self.offset, self.offset),
            sway=uniform(generator, 0.0, self.sway),
            wavelength=uniform(generator, 3.0, 12.0),
            phase=uniform(generator, 0.0, 2.0 * math.pi),
            lookahead=uniform(generator, *self.lookahead),
        )


ANYWHERE = LaneRanges(offset=2.5, sway=1.0, lookahead=(0.7, 6.0))
UP_TO_THE_LINES = LaneRanges(offset=2.05, sway=0.2, lookahead=(1.5, 4.0))
ASTRAY = LaneRanges(offset=3.2, sway=0.5, lookahead=(0.5, 2.5))
INSIDE = LaneRanges(offset=1.2, sway=0.2, lookahead=(1.5, 5.0))


def _slow_to_fast(generator: np.random.Generator, slowest: float, fastest: float) -> float:
    """A speed whose logarithm is uniform: half of them are below the geometric mean."""
    return math.exp(uniform(generator, math.log(slowest), math.log(fastest)))


def _balls(lanes: LaneRanges, *, speed: Range, gain: Range) -> Draw:
    def draw(generator: np.random.Generator) -> Controller:
        return BallRunner(
            lane=lanes.draw(generator),
            speed=_slow_to_fast(generator, *speed),
            gain=uniform(generator, *gain),
        )

    return draw


def _cars(
    lanes: LaneRanges, *, speed: Range, speed_gain: Range, forward_share: float = 0.0
) -> Draw:
    def draw(generator: np.random.Generator) -> Controller:
        return CarRunner(
            lane=lanes.draw(generator),
            speed=_slow_to_fast(generator, *speed),
            speed_gain=uniform(generator, *speed_gain),
            steering_gain=uniform(generator, 1.5, 3.5),
            damping=uniform(generator, 0.0, 0.15),
            reverse=bool(generator.random() >= forward_share),
        )

    return draw


def _drones(
    lanes: LaneRanges, *, speed: Range, height: Range, velocity_gain: Range, max_tilt: Range
) -> Draw:
    def draw(generator: np.random.Generator) -> Controller:
        return DroneRunner(
            lane=lanes.draw(generator),
            speed=_slow_to_fast(generator, *speed),
            height=uniform(generator, *height),
            flight=FlightController(
                velocity_gain=uniform(generator, *velocity_gain),
                max_tilt=uniform(generator, *max_tilt),
                takeoff_tilt=28.0,
                tilt_gain=10.0,
                tilt_damping=1.9,
                climb_gain=8.5,
                climb_damping=9.0,
            ),
        )

    return draw


# Speeds, gains and tilts around the best of random searches over 180 to 500 episodes a task.
# In a robust learner's data, limits are approached to 1.5 times what a strong attack shifts an
# observed speed by: 0.25 m/s for ball and drone, 0.05 m/s for the car, which observes it unscaled.
BALL_RUN = (
    broad(_balls(ANYWHERE, speed=(0.4, 12.0), gain=(0.3, 3.0)), switch_every=40.0),
    frontier(_balls(UP_TO_THE_LINES, speed=(2.1, 2.6), gain=(1.5, 4.0))),
    recovery(_balls(ASTRAY, speed=(1.2, 5.0), gain=(1.0, 4.0)), switch_every=25.0),
    cautious(_balls(INSIDE, speed=(1.2, 2.45), gain=(2.0, 4.0))),
)
CAR_RUN = (
    broad(_cars(ANYWHERE, speed=(0.25, 4.5), speed_gain=(0.2, 4.0), forward_share=0.15)),
    frontier(_cars(UP_TO_THE_LINES, speed=(1.33, 1.53), speed_gain=(2.5, 5.0)), noise=0.1),
    recovery(_cars(ASTRAY, speed=(0.7, 3.2), speed_gain=(1.0, 5.0)), switch_every=35.0),
    cautious(_cars(INSIDE, speed=(0.7, 1.44), speed_gain=(2.0, 4.0))),
)
DRONE_RUN = (
    broad(
        _drones(
            ANYWHERE,
            speed=(0.25, 7.0),
            height=(0.4, 3.0),
            velocity_gain=(1.0, 8.0),
            max_tilt=(0.2, 0.9),
        )
    ),
    frontier(
        _drones(
            UP_TO_THE_LINES,
            speed=(1.15, 1.6),
            height=(1.0, 2.0),
            velocity_gain=(2.0, 4.0),
            max_tilt=(0.5, 0.7),
        )
    ),
    recovery(
        _drones(
            ASTRAY,
            speed=(0.7, 3.5),
            height=(1.0, 2.5),
            velocity_gain=(2.0, 6.0),
            max_tilt=(0.5, 0.7),
        ),
        switch_every=40.0,
    ),
    cautious(
        _drones(
            INSIDE,
            speed=(0.5, 1.46),
            height=(0.8, 2.0),
            velocity_gain=(2.0, 4.0),
            max_tilt=(0.4, 0.65),
        )
    ),
)
