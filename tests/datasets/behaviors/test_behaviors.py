"""Scripted behaviour policies: geometry, noise, and whether they are any good."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from safer_offline.datasets.behaviors import BEHAVIORS, behaviors_for
from safer_offline.datasets.behaviors.base import (
    ExplorationNoise,
    NoisyController,
    SwitchingController,
)
from safer_offline.datasets.behaviors.scripted.circle import BallDriver, CarDriver, ClippedCircle
from safer_offline.environments.bullet.simulated import SafetyEnvironment
from safer_offline.errors import UsageError

ALL_FAMILIES = [
    pytest.param(env_id, family, id=f"{env_id}-{family.name}")
    for env_id, families in BEHAVIORS.items()
    for family in families
]


def rest(observation):
    """A controller that does nothing; what it does after all is noise."""
    return [0.0, 0.0]


# Numbers in an observation and in an action.
SIZES = {
    "SafetyCarCircle-v0": (8, 2), "SafetyBallCircle-v0": (8, 2),
    "SafetyDroneCircle-v0": (18, 4), "SafetyAntCircle-v0": (34, 8),
    "SafetyCarRun-v0": (7, 2), "SafetyBallRun-v0": (7, 2),
    "SafetyDroneRun-v0": (17, 4), "SafetyAntRun-v0": (33, 8),
    "SafetyHalfCheetahVelocity-v1": (17, 6), "SafetyHopperVelocity-v1": (11, 3),
    "SafetyAntVelocity-v1": (27, 8),
}  # fmt: skip


def act(controller, steps, size=8):
    return np.array([controller(np.zeros(size, np.float32)) for _ in range(steps)])


# Families


@pytest.mark.parametrize("env_id", BEHAVIORS)
def test_every_task_has_the_four_families(env_id):
    families = behaviors_for(env_id)
    assert [family.name for family in families] == ["broad", "frontier", "recovery", "cautious"]
    assert all(family.description for family in families)


def test_tasks_that_nobody_can_act_in_are_refused():
    with pytest.raises(UsageError, match=r"Mine-v0.* there are some for .*SafetyCarCircle-v0"):
        behaviors_for("Mine-v0")


@pytest.mark.parametrize(("env_id", "family"), ALL_FAMILIES)
@given(
    seed=st.integers(0, 2**32),
    numbers=st.lists(st.floats(-1000, 1000, width=32), min_size=34, max_size=34),
)
@settings(max_examples=30, deadline=None)
def test_actions_are_finite_wherever_the_simulator_may_lead(env_id, family, seed, numbers):
    controller = family.draw(np.random.default_rng(seed))
    size, actuators = SIZES[env_id]
    for _ in range(3):
        action = controller(np.array(numbers[:size], np.float32))
        assert len(action) == actuators
        assert all(math.isfinite(number) for number in action)


@pytest.mark.parametrize(("env_id", "family"), ALL_FAMILIES)
def test_a_controller_is_a_function_of_its_generator(env_id, family):
    first, again, other = (
        act(family.draw(np.random.default_rng(seed)), 50, SIZES[env_id][0]) for seed in (4, 4, 5)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def score(env_id, family, episodes):
    """Return and cost of some episodes, shape (episodes, 2)."""
    environment, scores = SafetyEnvironment(env_id), []
    for episode in range(episodes):
        controller = family.draw(np.random.default_rng([1, episode]))
        observation, total = environment.reset(episode), np.zeros(2)
        ended = False
        while not ended:
            action = np.clip(np.array(controller(observation), np.float32), -1, 1)
            observation, reward, cost, terminated, truncated = environment.step(action)
            total += reward, cost
            ended = terminated or truncated
        scores.append(total)
    environment.close()
    return np.array(scores)


@pytest.mark.parametrize(
    ("env_id", "episodes"), [("SafetyCarCircle-v0", 8), ("SafetyBallCircle-v0", 24)]
)
def test_the_frontier_is_fast_for_its_cost_and_the_rest_is_broad(env_id, episodes):
    """What a dataset needs: something to imitate, and a spread around it."""
    families = {family.name: family for family in behaviors_for(env_id)}
    broad, frontier = (score(env_id, families[name], episodes) for name in ("broad", "frontier"))
    safe_broad, safe_frontier = (scores[scores[:, 1] <= 10, 0] for scores in (broad, frontier))
    assert len(safe_frontier) > 0.6 * episodes
    assert len(safe_broad) > 0
    assert np.median(safe_frontier) > 1.5 * np.median(safe_broad)
    assert np.median(safe_frontier) > safe_broad.max() - 50
    assert (broad[:, 1] > 10).mean() > 0.2  # unsafe examples
    assert broad[:, 0].std() > 30


# Paths and drivers

# Steps of a nanometre: in the very middle no direction is right, and smaller numbers are none.
positions = st.floats(-20, 20).map(lambda x: round(x, 9))
paths = st.builds(
    ClippedCircle, radius=st.floats(4, 9), margin=st.floats(3, 9), lookahead=st.floats(0.5, 5)
)


@given(path=paths, x=positions, y=positions)
def test_the_pursued_point_lies_on_the_clipped_circle_ahead_clockwise(path, x, y):
    target_x, target_y = path.pursued_point(x, y)
    assert abs(target_x) <= path.margin
    on_circle = math.hypot(target_x, target_y) == pytest.approx(path.radius)
    on_line = abs(target_x) == path.margin and math.hypot(target_x, target_y) <= path.radius
    assert on_circle or on_line
    # Unclipped, it is an arc of `lookahead` further, in the sense in which the task pays.
    free_x, free_y = ClippedCircle(path.radius, 99.0, path.lookahead).pursued_point(x, y)
    ahead = math.remainder(math.atan2(y, x) - math.atan2(free_y, free_x), 2 * math.pi)
    assert ahead * path.radius == pytest.approx(path.lookahead)
    assert free_y == pytest.approx(target_y)


@given(x=positions, y=positions, speed=st.floats(0.5, 9))
def test_a_ball_at_rest_is_pushed_straight_to_the_pursued_point(x, y, speed):
    assume(x or y)
    path = ClippedCircle(7.0, 5.0, 3.0)
    observation = np.array([x / 10, y / 10, 0, 0, 0, 0, 0, 0])
    force = np.array(BallDriver(path=path, speed=speed, gain=1.0)(observation))
    target = np.array(path.pursued_point(x, y)) - (x, y)
    assert np.hypot(*force) == pytest.approx(speed)
    assert force @ target == pytest.approx(speed * np.hypot(*target), rel=1e-4)


def test_a_ball_at_its_wanted_velocity_is_left_alone():
    path = ClippedCircle(7.0, 9.0, 3.0)
    target = np.array(path.pursued_point(3.0, 4.0)) - (3.0, 4.0)
    velocity = 6.0 * target / np.hypot(*target)
    observation = np.array([0.3, 0.4, *velocity / 5, 0, 0, 0, 0])
    force = BallDriver(path=path, speed=6.0, gain=2.0)(observation)
    assert force == pytest.approx([0, 0], abs=1e-6)


@given(x=positions, y=positions, yaw=st.floats(-3.1, 3.1))
def test_driving_backwards_mirrors_driving_forwards(x, y, yaw):
    settings = {
        "path": ClippedCircle(7.0, 5.0, 3.0),
        "throttle": 0.9,
        "steering_gain": 2.0,
        "damping": 0.2,
        "slowing": 0.3,
    }

    def drive(heading, *, reverse):
        observation = [x / 10, y / 10, 0, 0, math.sin(heading), math.cos(heading), 0, 0]
        return CarDriver(**settings, reverse=reverse)(np.array(observation))

    forwards, backwards = drive(yaw, reverse=False), drive(yaw + math.pi, reverse=True)
    assert 0 < forwards[0] <= 0.9
    assert abs(forwards[1]) <= 1
    # On the seam behind the car, left and right are equally far.
    if abs(abs(forwards[1]) - 1) > 1e-9:
        assert backwards == pytest.approx([-forwards[0], -forwards[1]], abs=1e-6)


# Noise


@pytest.mark.parametrize(("scale", "correlation"), [(0.3, 0.85), (0.1, 0.0), (1.0, 0.95)])
def test_noise_is_stationary_with_the_deviation_and_correlation_it_promises(scale, correlation):
    noise = ExplorationNoise(scale=scale, correlation=correlation)
    draws = act(NoisyController(rest, noise, np.random.default_rng(0)), 60_000)[200:]
    assert np.abs(draws.mean(0)).max() < 0.1 * scale
    for half in np.array_split(draws, 2):
        assert half.std(0) == pytest.approx(np.full(2, scale), rel=0.06)
    for column in draws.T:
        assert np.corrcoef(column[1:], column[:-1])[0, 1] == pytest.approx(correlation, abs=0.03)
    assert np.corrcoef(draws.T)[0, 1] == pytest.approx(0, abs=0.05)


def test_without_noise_the_controller_acts_as_it_is():
    controller = NoisyController(rest, ExplorationNoise(), np.random.default_rng(0))
    assert not act(controller, 100).any()


def test_bursts_are_constant_short_and_as_frequent_as_they_should_be():
    noise = ExplorationNoise(burst_rate=0.02, burst_steps=10)
    actions = act(NoisyController(rest, noise, np.random.default_rng(0)), 40_000)
    assert np.abs(actions).max() <= 1
    lengths = [
        len(list(run))
        for action, run in itertools.groupby(actions.tolist())
        if action != [0.0, 0.0]
    ]
    assert sorted(set(lengths)) == list(range(1, 11))
    quiet = (actions == 0).all(1).sum()
    assert len(lengths) / (quiet + len(lengths)) == pytest.approx(0.02, rel=0.15)


def test_drivers_change_at_the_rate_they_should():
    drawn = itertools.count()

    def draw(generator):
        number = float(next(drawn))
        return lambda observation: [number, number]

    controller = SwitchingController(draw, np.random.default_rng(0), switch_rate=0.1)
    changes = np.diff(act(controller, 5_000)[:, 0])
    assert set(changes) == {0.0, 1.0}
    assert changes.mean() == pytest.approx(0.1, rel=0.2)
    never = SwitchingController(draw, np.random.default_rng(0), switch_rate=0.0)
    assert not np.diff(act(never, 500)[:, 0]).any()
