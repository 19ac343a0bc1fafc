"""Flying the drone: a flight controller for both of its tasks, and the drivers for Circle.

A wanted velocity asks for an acceleration, an acceleration for a tilt, a tilt for a torque: each
loop hands its wish to the next, faster one. The gains differ between the tasks because the
control steps do: 1/60 s in Run, 0.1 s in Circle.
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
from safer_offline.datasets.behaviors.scripted.circle import METRES, ClippedCircle, draw_path

VELOCITY = 5.0
"""Velocities are observed in units of 5 m/s."""

TURN_RATE = 10.0
"""Angular velocities are observed in units of 10 rad/s."""

GRAVITY = 9.81
"""m/s²."""

PROPELLER_SPEED = 8.75
"""Speed of the air through a hovering drone's propellers, m/s: climbing at it, they do not lift."""

ROTOR_RANGE = 0.1
"""Share by which a full action changes a rotor's speed from the one that hovers."""

STANDING_HEIGHT = 0.17
"""Height of a drone on the ground, in metres."""

Range = tuple[float, float]


@dataclass(frozen=True)
class FlightController:
    """Flies at a wanted velocity and height, whatever way the drone faces.

    Attributes:
        velocity_gain: Acceleration per velocity error, 1/s.
        max_tilt: Largest tilt it asks for, in radians.
        takeoff_tilt: Tilt it dares per metre above the ground, below which rotors would touch it.
        tilt_gain: Rotor command per radian of tilt error.
        tilt_damping: Rotor command per rad/s of turning.
        climb_gain: Vertical acceleration per metre below the wanted height, 1/s².
        climb_damping: Vertical acceleration per vertical speed, against it, 1/s.
        yaw_damping: Rotor command per rad/s of yaw rate.
    """

    velocity_gain: float
    max_tilt: float
    takeoff_tilt: float
    tilt_gain: float
    tilt_damping: float
    climb_gain: float
    climb_damping: float
    yaw_damping: float = 0.1

    def rotor_commands(
        self, observation: list[float], velocity_x: float, velocity_y: float, height: float
    ) -> list[float]:
        """The action that takes the drone to this velocity (m/s, world axes) and height (m).

        Args:
            observation: Of a drone, as a list; what follows its first 13 numbers is not used.
            velocity_x: Wanted velocity along x.
            velocity_y: Wanted velocity along y.
            height: Wanted height.
        """
        _, _, z10, vx5, vy5, vz5, qx, qy, qz, qw, wx10, wy10, wz10 = observation[:13]
        z, vx, vy, vz = METRES * z10, VELOCITY * vx5, VELOCITY * vy5, VELOCITY * vz5

        # The thrust we wish for, as an acceleration in world axes.
        tilt = min(self.max_tilt, max(0.0, self.takeoff_tilt * (z - STANDING_HEIGHT)))
        sideways = GRAVITY * math.tan(tilt)
        ax, ay = self.velocity_gain * (velocity_x - vx), self.velocity_gain * (velocity_y - vy)
        shrink = min(1.0, sideways / max(math.hypot(ax, ay), 1e-9))
        ax, ay = shrink * ax, shrink * ay
        lift = self.climb_gain * (height - z) - self.climb_damping * vz
        az = GRAVITY + max(-0.4 * GRAVITY, min(0.4 * GRAVITY, lift))

        # The same in the axes of the body, which are the columns of its rotation matrix.
        xx, xy, xz = 1 - 2 * (qy * qy + qz * qz), 2 * (qx * qy + qw * qz), 2 * (qx * qz - qw * qy)
        yx, yy, yz = 2 * (qx * qy - qw * qz), 1 - 2 * (qx * qx + qz * qz), 2 * (qy * qz + qw * qx)
        zx, zy, zz = 2 * (qx * qz + qw * qy), 2 * (qy * qz - qw * qx), 1 - 2 * (qx * qx + qy * qy)
        forward = ax * xx + ay * xy + az * xz
        left = ax * yx + ay * yy + az * yz
        up = ax * zx + ay * zy + az * zz
        roll_rate = TURN_RATE * (wx10 * xx + wy10 * xy + wz10 * xz)
        pitch_rate = TURN_RATE * (wx10 * yx + wy10 * yy + wz10 * yz)
        yaw_rate = TURN_RATE * (wx10 * zx + wy10 * zy + wz10 * zz)

        roll = -self.tilt_gain * math.atan2(left, up) - self.tilt_damping * roll_rate
        pitch = self.tilt_gain * math.atan2(forward, up) - self.tilt_damping * pitch_rate
        roll, pitch = max(-1.0, min(1.0, roll)), max(-1.0, min(1.0, pitch))
        yaw = max(-0.2, min(0.2, self.yaw_damping * yaw_rate))

        # A rotor at m times the speed that hovers lifts m (m - v / PROPELLER_SPEED) times the
        # weight when it climbs at v along its axis; solved for m.
        inflow = (vx * zx + vy * zy + vz * zz) / PROPELLER_SPEED
        speed = 0.5 * (inflow + math.sqrt(inflow * inflow + 4.0 * max(up, 0.0) / GRAVITY))
        thrust = (speed - 1.0) / ROTOR_RANGE
        # Attitude comes first: without it, thrust does not point where it should.
        room = 1.0 - 0.5 * max(abs(roll), abs(pitch))
        thrust = max(-room, min(room, thrust))
        # Rotors are ahead (0), right (1), behind (2) and left (3); 0 and 2 turn the other way.
        return [
            thrust - pitch + yaw,
            thrust - roll - yaw,
            thrust + pitch + yaw,
            thrust + roll - yaw,
        ]


@dataclass(frozen=True)
class DroneCircleDriver:
    """Flies towards the pursued point of a clipped circle.

    Attributes:
        path: The path to follow, clockwise.
        speed: Wanted speed, m/s.
        braking: Outward speed along x that it allows itself per metre left to the margin, 1/s.
        height: Wanted height, m.
        flight: How it gets there.
    """

    path: ClippedCircle
    speed: float
    braking: float
    height: float
    flight: FlightController

    def __call__(self, observation: FloatArray) -> list[float]:
        """Rotor commands."""
        seen = observation.tolist()
        x, y = METRES * seen[0], METRES * seen[1]
        target_x, target_y = self.path.pursued_point(x, y)
        to_x, to_y = target_x - x, target_y - y
        scale = self.speed / max(math.hypot(to_x, to_y), 1e-6)
        # The straight line to the pursued point does not know how far the drone slides on.
        outward = self.braking * (self.path.margin - abs(x))
        velocity_x = scale * to_x
        velocity_x = min(velocity_x, outward) if x > 0 else max(velocity_x, -outward)
        return self.flight.rotor_commands(seen, velocity_x, scale * to_y, self.height)


def _drones(
    *,
    radius: Range,
    margin: Range,
    lookahead: Range,
    speed: Range,
    height: Range = (2.0, 3.2),
    velocity_gain: Range = (1.4, 1.65),
    max_tilt: Range = (0.5, 0.57),
    tilt_gain: Range = (2.8, 4.2),
) -> Draw:
    def draw(generator: np.random.Generator) -> Controller:
        return DroneCircleDriver(
            path=draw_path(generator, radius=radius, margin=margin, lookahead=lookahead),
            speed=uniform(generator, *speed),
            braking=uniform(generator, 0.9, 1.1),
            height=uniform(generator, *height),
            flight=FlightController(
                velocity_gain=uniform(generator, *velocity_gain),
                max_tilt=uniform(generator, *max_tilt),
                takeoff_tilt=0.8,
                tilt_gain=uniform(generator, *tilt_gain),
                tilt_damping=0.55,
                climb_gain=3.0,
                climb_damping=3.0,
                yaw_damping=0.02,
            ),
        )

    return draw


# The narrow ranges lie around the best of random searches over 1500 episodes. A fast drone slides
# outwards, so its path is smaller than the circle that pays, and it goes about 1 m past `margin`.
DRONE_CIRCLE = (
    broad(
        _drones(
            radius=(5.0, 7.2),
            margin=(2.5, 8.0),
            lookahead=(2.5, 6.0),
            speed=(1.5, 9.0),
            height=(0.6, 4.0),
            velocity_gain=(0.8, 2.2),
            max_tilt=(0.25, 0.65),
            tilt_gain=(1.5, 4.5),
        ),
        noise=0.3,
        burst_rate=0.003,  # a burst of half a second turns it over; a few may
    ),
    frontier(_drones(radius=(5.6, 6.0), margin=(4.0, 5.5), lookahead=(4.6, 5.1), speed=(7.0, 8.0))),
    recovery(_drones(radius=(5.6, 7.0), margin=(3.5, 7.0), lookahead=(3.5, 5.5), speed=(5.0, 8.0))),
    cautious(
        _drones(radius=(5.4, 6.2), margin=(3.0, 4.75), lookahead=(4.6, 5.1), speed=(4.5, 8.0))
    ),
)
