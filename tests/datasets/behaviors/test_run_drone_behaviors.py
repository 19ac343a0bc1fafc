"""Scripted drivers of the Run tasks and of the drone: their maths, and what they reach."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safer_offline.datasets.behaviors.scripted.circle import ClippedCircle
from safer_offline.datasets.behaviors.scripted.drone import (
    DRONE_CIRCLE,
    DroneCircleDriver,
    FlightController,
)
from safer_offline.datasets.behaviors.scripted.run import (
    BALL_RUN,
    CAR_RUN,
    DRONE_RUN,
    BallRunner,
    CarRunner,
    Lane,
)
from safer_offline.environments.bullet.simulated import SafetyEnvironment

TASKS = {
    "SafetyBallRun-v0": (BALL_RUN, 7, 2),
    "SafetyCarRun-v0": (CAR_RUN, 7, 2),
    "SafetyDroneRun-v0": (DRONE_RUN, 17, 4),
    "SafetyDroneCircle-v0": (DRONE_CIRCLE, 18, 4),
}
NAMES = ("broad", "frontier", "recovery", "cautious")
ALL_FAMILIES = [
    pytest.param(family, *sizes, id=f"{env_id}-{family.name}")
    for env_id, (families, *sizes) in TASKS.items()
    for family in families
]
CENTRE = Lane(offset=0.0, sway=0.0, wavelength=5.0, phase=0.0, lookahead=3.0)
FLIGHT = FlightController(
    velocity_gain=2.0,
    max_tilt=0.5,
    takeoff_tilt=28.0,
    tilt_gain=10.0,
    tilt_damping=2.0,
    climb_gain=8.0,
    climb_damping=9.0,
)


# Families


@pytest.mark.parametrize("env_id", TASKS)
def test_every_task_has_the_four_families(env_id):
    assert tuple(family.name for family in TASKS[env_id][0]) == NAMES


@pytest.mark.parametrize(("family", "seen", "actuators"), ALL_FAMILIES)
@given(seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=20, deadline=None)
def test_actions_are_finite_wherever_the_simulator_may_lead(family, seen, actuators, seed, data):
    numbers = st.floats(-1000, 1000, width=32)
    observation = data.draw(st.lists(numbers, min_size=seen, max_size=seen))
    controller = family.draw(np.random.default_rng(seed))
    for _ in range(3):
        action = controller(np.array(observation, np.float32))
        assert len(action) == actuators
        assert all(math.isfinite(number) for number in action)


@pytest.mark.parametrize(("family", "seen", "actuators"), ALL_FAMILIES)
def test_a_controller_is_a_function_of_its_generator(family, seen, actuators):
    def act(seed):
        controller = family.draw(np.random.default_rng(seed))
        return np.array([controller(np.full(seen, 0.1, np.float32)) for _ in range(60)])

    assert np.array_equal(act(4), act(4))
    assert not np.array_equal(act(4), act(5))


def score(env_id, family, episodes):
    """Return, cost and whether it crashed, of some episodes; shape (episodes, 3)."""
    environment, scores = SafetyEnvironment(env_id), []
    for episode in range(episodes):
        controller = family.draw(np.random.default_rng([7, episode]))
        observation, total, ended = environment.reset(episode), np.zeros(3), False
        while not ended:
            action = np.clip(np.array(controller(observation), np.float32), -1, 1)
            observation, reward, cost, terminated, truncated = environment.step(action)
            total += reward, cost, terminated
            ended = terminated or truncated
        scores.append(total)
    environment.close()
    return np.array(scores)


@pytest.mark.parametrize(
    ("env_id", "episodes", "safe_best", "far"),
    [
        ("SafetyBallRun-v0", 14, 400, 510),
        ("SafetyCarRun-v0", 8, 510, 450),
        ("SafetyDroneRun-v0", 8, 395, 430),
        ("SafetyDroneCircle-v0", 7, 520, 330),
    ],
)
def test_families_span_the_plane_of_return_and_cost(env_id, episodes, safe_best, far):
    families, *_ = TASKS[env_id]
    # Of the widest family more: four in ten of its episodes return more than `far`, in a hundred
    # from other seeds.
    broad, frontier, recovery, cautious = (
        score(env_id, family, episodes * (2 if family.name == "broad" else 1))
        for family in families
    )
    # Careful: safe, in the air, and not slow throughout.
    assert (cautious[:, 1] == 0).mean() >= 0.85
    assert np.ptp(cautious[:, 0]) > 60
    # Frontier: faster than careful drivers, and the best of those without cost are fast.
    safe = frontier[frontier[:, 1] == 0, 0]
    assert len(safe) >= 0.3 * episodes
    assert safe.max() > safe_best
    assert np.median(frontier[:, 0]) > np.median(cautious[:, 0]) + 20
    assert not frontier[:, 2].any()
    assert not cautious[:, 2].any()
    # Recovery: in and out, so hardly ever all the way in or all the way out.
    assert recovery[:, 1].max() > 30
    assert (recovery[:, 1] > 0).mean() > 0.6
    assert recovery[:, 1].mean() < 0.7 * {"B": 100, "C": 200, "D": 200}[env_id[6]]
    # Broad: everything.
    assert (broad[:, 1] == 0).any()
    assert (broad[:, 1] > 25).mean() >= 0.2
    assert broad[:, 0].max() > far
    assert np.ptp(broad[:, 0]) > 250


# Lanes and drivers

near = st.floats(-20, 20)


@given(x=near, y=near, offset=st.floats(-3, 3), lookahead=st.floats(0.5, 6))
def test_a_straight_lane_is_reached_and_kept(x, y, offset, lookahead):
    lane = Lane(offset=offset, sway=0.0, wavelength=5.0, phase=0.0, lookahead=lookahead)
    along, across = lane.direction(x, y)
    assert math.hypot(along, across) == pytest.approx(1)
    assert along > 0
    assert across * lookahead == pytest.approx(along * (offset - y))
    assert lane.direction(x, offset) == pytest.approx((1, 0), abs=1e-6)


def test_a_lane_sways_by_its_amplitude_around_its_offset():
    lane = Lane(offset=1.0, sway=0.5, wavelength=4.0, phase=0.3, lookahead=2.0)
    slopes = [lane.direction(x, 0.0) for x in np.linspace(0, 4, 401)]
    aims = [2.0 * across / along for along, across in slopes]
    assert (min(aims), max(aims)) == pytest.approx((0.5, 1.5), abs=1e-3)
    assert aims[0] == pytest.approx(aims[-1])


def test_a_ball_at_its_wanted_velocity_is_left_alone_and_a_slow_one_pushed_on():
    driver = BallRunner(lane=CENTRE, speed=2.4, gain=2.0)
    assert driver(np.array([0.3, 0, 2.4 / 5, 0, 0, 0, 0])) == pytest.approx([0, 0], abs=1e-6)
    assert driver(np.array([0.3, 0, 2.3 / 5, 0, 0, 0, 0])) == pytest.approx([0.2, 0], abs=1e-6)
    pushed = driver(np.array([0, 0.3, 0, 0, 0, 0, 0]))  # 3 m aside: 45 degrees, saturated
    assert pushed == pytest.approx([1, -1])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("speed", [1.0, 1.4, 1.8])
def test_a_car_on_course_holds_its_wheels_straight_and_corrects_its_speed(reverse, speed):
    driver = CarRunner(
        lane=CENTRE, speed=1.4, speed_gain=2.0, steering_gain=3.0, damping=0.1, reverse=reverse
    )
    heading = -1.0 if reverse else 1.0
    throttle, steering = driver(np.array([0.3, 0, speed, 0, 0, heading, 0]))
    assert steering == pytest.approx(0)
    cruising = 0.27 * 1.4
    wanted = min(1.0, max(-1.0, cruising + 2.0 * (1.4 - speed)))
    assert heading * throttle == pytest.approx(wanted)


# Flight


def drone(*, position=(0, 0, 1), velocity=(0, 0, 0), quaternion=(0, 0, 0, 1), turning=(0, 0, 0)):
    """An observation of a drone, from metres, m/s and rad/s."""
    parts = (np.array(position) / 10, np.array(velocity) / 5, quaternion, np.array(turning) / 10)
    return np.concatenate([*parts, np.zeros(4)]).tolist()


def turned(axis, angle):
    """The quaternion (xyzw) of a turn by `angle` around `axis`."""
    return (*(math.sin(angle / 2) * np.array(axis)), math.cos(angle / 2))


@given(
    velocity=st.tuples(st.floats(-4, 4), st.floats(-4, 4)),
    yaw=st.floats(-math.pi, math.pi),
)
def test_a_level_drone_at_its_wanted_velocity_and_height_hovers(velocity, yaw):
    seen = drone(velocity=(*velocity, 0), quaternion=turned((0, 0, 1), yaw))
    assert FLIGHT.rotor_commands(seen, *velocity, 1.0) == pytest.approx([0] * 4, abs=1e-6)


@given(yaw=st.floats(-math.pi, math.pi), course=st.floats(-math.pi, math.pi))
def test_it_leans_to_where_it_should_go_whatever_way_it_faces(yaw, course):
    seen = drone(quaternion=turned((0, 0, 1), yaw))
    ahead, right, behind, left = FLIGHT.rotor_commands(
        seen, 0.1 * math.cos(course), 0.1 * math.sin(course), 1.0
    )
    # The rotors that it should lean away from lift more: behind - ahead leans forward.
    forward, leftward = behind - ahead, right - left
    assert math.hypot(forward, leftward) > 0.1
    lean = math.atan2(leftward, forward)
    assert math.cos(lean - (course - yaw)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("axis", "low", "high"), [((1, 0, 0), 1, 3), ((0, 1, 0), 0, 2)])
def test_it_rights_itself_and_resists_turning(axis, low, high):
    tilted = FLIGHT.rotor_commands(drone(quaternion=turned(axis, 0.05)), 0.0, 0.0, 1.0)
    turning = FLIGHT.rotor_commands(drone(turning=0.2 * np.array(axis)), 0.0, 0.0, 1.0)
    # Rotor 3, on the left, rolls to the right (around +x); rotor 2, behind, pitches forward.
    for commands in (tilted, turning):
        assert commands[high] < commands[low] - 0.1
        others = [c for i, c in enumerate(commands) if i not in (low, high)]
        assert others[0] == pytest.approx(others[1], abs=1e-6)


@pytest.mark.parametrize(("height", "sign"), [(0.9, -1), (1.1, 1)])
def test_all_rotors_climb_and_sink_together(height, sign):
    commands = FLIGHT.rotor_commands(drone(), 0.0, 0.0, height)
    assert commands == pytest.approx([commands[0]] * 4)
    assert sign * commands[0] > 0.1


def test_propellers_that_climb_turn_faster_for_the_same_lift():
    still = dataclasses.replace(FLIGHT, climb_gain=0.0, climb_damping=0.0)
    commands = still.rotor_commands(drone(velocity=(0, 0, 1)), 0.0, 0.0, 1.0)
    speed = 1 + 0.1 * commands[0]
    assert commands == pytest.approx([commands[0]] * 4)
    assert speed * (speed - 1 / 8.75) == pytest.approx(1)


def test_it_brakes_a_spin():
    commands = FLIGHT.rotor_commands(drone(turning=(0, 0, 1)), 0.0, 0.0, 1.0)
    # Rotors 0 and 2, faster, turn the body clockwise; lift and tilt stay as they are.
    assert commands == pytest.approx([0.1, -0.1, 0.1, -0.1])


def test_it_stands_straight_until_it_is_off_the_ground():
    on_the_ground = drone(position=(0, 0, 0.17))
    commands = FLIGHT.rotor_commands(on_the_ground, 1.5, 0.0, 1.0)
    assert commands == pytest.approx([commands[0]] * 4)
    assert commands[0] > 0.5


def test_no_wish_tilts_it_further_than_it_should_go():
    tilted = drone(quaternion=turned((0, 1, 0), FLIGHT.max_tilt))
    ahead, _, behind, _ = FLIGHT.rotor_commands(tilted, 99.0, 0.0, 1.0)
    assert behind == pytest.approx(ahead, abs=1e-6)


@pytest.mark.parametrize("side", [1, -1])
def test_a_drone_is_held_back_by_what_is_left_to_the_margin(side):
    def lean_outwards(x, braking):
        path = ClippedCircle(radius=9.0, margin=5.0, lookahead=3.0)
        driver = DroneCircleDriver(path, speed=4.0, braking=braking, height=1.0, flight=FLIGHT)
        ahead, _, behind, _ = driver(np.array(drone(position=(side * x, side * 3.0, 1))))
        return side * (behind - ahead)

    # Clockwise and above the middle, the path leads outwards to the line and then along it.
    assert lean_outwards(4.0, braking=1.0) > 0.1
    assert lean_outwards(5.5, braking=1.0) < -0.1
    # The closer to the line and the more careful, the less of it.
    assert lean_outwards(4.9, braking=0.1) < lean_outwards(4.9, braking=1.0)
    assert lean_outwards(4.9, braking=1.0) < lean_outwards(4.0, braking=1.0)
