"""Simulation: an episode depends on its seed and its actions, and on nothing else."""

import concurrent.futures
import multiprocessing
import random
import re
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from safer_offline.datasets.behaviors.scripted.circle import CarDriver, ClippedCircle
from safer_offline.environments.bullet.environment import BulletEnvironment
from safer_offline.environments.bullet.simulated import SafetyEnvironment
from safer_offline.environments.tasks import (
    BULLET_IDS,
    ENVIRONMENT_IDS,
    resolve_environment,
    short_name,
)
from safer_offline.environments.vector import VectorEnvironment
from safer_offline.errors import MissingSimulatorError, SaferOfflineError, UsageError

STEPS = 40


def drive(environment, seed, steps=STEPS):
    """All numbers of the first steps of an episode; the actions are a function of the seed."""
    generator = np.random.default_rng(seed)
    numbers = [environment.reset(seed)]
    for _ in range(steps):
        action = generator.uniform(-1, 1, environment.action_space.shape)
        step = environment.step(action)
        numbers.append(np.array([*step.observation, step.reward, step.cost, step.terminated]))
        if step.terminated or step.truncated:
            break
    return np.concatenate(numbers)


def drive_anew(env_id, seed):
    """`drive` in whatever process this runs in."""
    environment = SafetyEnvironment(env_id)
    numbers = drive(environment, seed)
    environment.close()
    return numbers


@pytest.fixture(scope="module")
def other_process():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        yield pool


def many_starts():
    """All numbers of two steps of many episodes of each task; the last bits of some are rare."""
    numbers = []
    for env_id in BULLET_IDS:
        environment = SafetyEnvironment(env_id)
        numbers += [drive(environment, seed, steps=2) for seed in range(60)]
        environment.close()
    return np.concatenate(numbers)


def vector_routines_for_avx512():
    """The names under which NumPy knows those that it would use on this processor."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return [name for name in found if name.startswith(("AVX512", "X86_V4"))]


def test_episodes_are_the_same_without_avx512(monkeypatch):
    """NumPy's own routines round by processor, too, and there is no setting for all versions."""
    if not vector_routines_for_avx512():
        pytest.skip("this processor has no AVX-512")
    here = many_starts()
    monkeypatch.setenv("NPY_DISABLE_CPU_FEATURES", " ".join(vector_routines_for_avx512()))
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(vector_routines_for_avx512).result() == []
        np.testing.assert_array_equal(pool.submit(many_starts).result(), here)


def after_nothing(environment):
    pass


def after_full_power(environment):
    """Leaves motors running and the body moving; the simulator would carry both over."""
    environment.reset(99)
    for _ in range(15):
        environment.step(np.ones(environment.action_space.shape))


def after_an_episode_elsewhere(environment):
    drive(environment, 1, steps=30)
    np.random.seed(3)
    random.seed(3)


@pytest.mark.parametrize("env_id", BULLET_IDS)
def test_an_episode_is_the_same_bits_after_any_history_and_in_any_process(env_id, other_process):
    elsewhere = other_process.submit(drive_anew, env_id, 5)
    environment = SafetyEnvironment(env_id)
    episodes = []
    for happen in (after_nothing, after_full_power, after_an_episode_elsewhere):
        happen(environment)
        episodes.append(drive(environment, 5))
    other_seed = drive(environment, 6)
    environment.close()
    assert episodes[1].tobytes() == episodes[0].tobytes()
    assert episodes[2].tobytes() == episodes[0].tobytes()
    assert elsewhere.result().tobytes() == episodes[0].tobytes()
    assert other_seed.tobytes() != episodes[0].tobytes()


@pytest.mark.parametrize("env_id", BULLET_IDS)
def test_what_only_a_renderer_needs_changes_no_bit(env_id):
    numbers = []
    for mode in (None, "rgb_array"):
        environment = gymnasium.make(f"safer_offline/{env_id}", render_mode=mode)
        actions = np.random.default_rng(4)
        numbers.append(environment.reset(seed=4)[0])
        for _ in range(STEPS):
            observation, reward, *_, info = environment.step(
                actions.uniform(-1, 1, environment.action_space.shape)
            )
            numbers[-1] = np.array([*numbers[-1], *observation, reward, info["cost"]])
        environment.close()
    np.testing.assert_array_equal(*numbers)


def test_two_environments_side_by_side_do_not_disturb_each_other():
    alone = drive_anew("car-circle", 5)
    left, right = SafetyEnvironment("car-circle"), SafetyEnvironment("car-circle")
    right.reset(8)
    actions = np.random.default_rng(5)
    numbers = [left.reset(5)]
    for _ in range(STEPS):
        right.step(np.ones(2))
        step = left.step(actions.uniform(-1, 1, 2))
        numbers.append(np.array([*step.observation, step.reward, step.cost, step.terminated]))
    assert np.concatenate(numbers).tobytes() == alone.tobytes()


def test_reset_leaves_the_generators_of_the_caller_alone():
    environment = SafetyEnvironment("ball-circle")
    np.random.seed(12)
    random.seed(12)
    expected = np.random.random(3).tolist(), random.random()
    np.random.seed(12)
    random.seed(12)
    environment.reset(7)
    environment.step(np.zeros(2))
    assert (np.random.random(3).tolist(), random.random()) == expected


def test_seeds_beyond_32_bits_are_welcome():
    environment = SafetyEnvironment("ball-circle")
    assert np.array_equal(environment.reset(2**40 + 3), environment.reset(2**40 + 3))
    assert not np.array_equal(environment.reset(2**40 + 3), environment.reset(4))


def test_time_limit_truncates_and_does_not_terminate():
    environment = SafetyEnvironment("ball-circle")
    environment.reset(0)
    steps = [environment.step(np.zeros(2)) for _ in range(environment.max_episode_steps)]
    assert environment.max_episode_steps == 200
    assert [step.truncated for step in steps] == [False] * 199 + [True]
    assert not any(step.terminated for step in steps)


def test_cost_of_the_circle_is_where_the_car_then_is():
    environment = SafetyEnvironment("car-circle")
    driver = CarDriver(
        path=ClippedCircle(radius=7.0, margin=9.0, lookahead=3.0),
        throttle=1.0,
        steering_gain=3.0,
        damping=0.2,
        slowing=0.1,
        reverse=True,
    )
    observation, costs, outside = environment.reset(0), [], []
    for _ in range(environment.max_episode_steps):
        observation, _, cost, _, _ = environment.step(np.array(driver(observation)))
        costs.append(cost)
        outside.append(float(abs(10 * observation[0]) > 6))
    assert costs == outside
    assert 0 < sum(costs) < len(costs)


# Names


def test_every_environment_is_found_by_id_and_short_name():
    assert len(set(ENVIRONMENT_IDS)) == 8 + 6
    for env_id in ENVIRONMENT_IDS:
        assert resolve_environment(env_id) == env_id
        assert resolve_environment(env_id.upper()) == env_id
        assert resolve_environment(short_name(env_id)) == env_id
        assert resolve_environment(short_name(env_id).replace("-", "_")) == env_id
    assert short_name("SafetyCarCircle-v0") == "car-circle"
    assert short_name("SafetyHalfCheetahVelocity-v1") == "halfcheetah-velocity"
    assert short_name("SafetyWalker2dVelocity-v1") == "walker2d-velocity"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("car-circel", "SafetyCarCircle-v0"),
        ("SafetyBalRun-v0", "SafetyBallRun-v0"),
        ("drone", "SafetyDroneRun-v0"),
        ("", "Safety"),
    ],
)
def test_unknown_names_lead_to_the_nearest_known_one(name, nearest):
    with pytest.raises(UsageError) as caught:
        SafetyEnvironment(name)
    assert f"unknown environment '{name}'" in str(caught.value)
    assert f"nearest known one is '{nearest}" in str(caught.value)


def test_without_the_simulator_the_message_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pybullet", None)  # importing it raises ImportError
    for make in (SafetyEnvironment, lambda env: VectorEnvironment(env, num_envs=1, workers=0)):
        with pytest.raises(MissingSimulatorError) as caught:
            make("car-circle")
        assert "pip install pybullet-arm64" in str(caught.value)


# As Gymnasium sees it


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("env_id", BULLET_IDS)
def test_gymnasium_finds_the_task_and_has_nothing_against_it(env_id):
    environment = gymnasium.make(f"safer_offline/{env_id}", render_mode="rgb_array")
    assert environment.spec.max_episode_steps == SafetyEnvironment(env_id).max_episode_steps
    check_env(environment.unwrapped)
    environment.close()


@pytest.mark.parametrize("modules", ["safer_offline, gymnasium", "gymnasium, safer_offline"])
def test_gymnasium_knows_the_tasks_whichever_package_is_imported_first(modules):
    code = (
        f"import sys, {modules}; assert 'SafetyAntVelocity-v1' in gymnasium.registry; "
        "assert not {'pybullet', 'mujoco', 'torch'} & set(sys.modules); "
        "made = gymnasium.make('safer_offline:SafetyCarCircle-v0').unwrapped; "
        "assert type(made).__name__ == 'BulletEnvironment'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_gymnasium_runs_many_of_them():
    environments = gymnasium.make_vec(
        "safer_offline/SafetyBallRun-v0", num_envs=3, vectorization_mode="sync"
    )
    one = gymnasium.make("safer_offline/SafetyBallRun-v0")
    observations, _ = environments.reset(seed=[5, 6, 7])
    np.testing.assert_array_equal(observations[1], one.reset(seed=6)[0])
    for action in np.random.default_rng(0).uniform(-1, 1, (30, 2)).astype(np.float32):
        observations, rewards, *_ = environments.step(np.stack([action] * 3))
        observation, reward, *_ = one.step(action)
        np.testing.assert_array_equal(observations[1], observation)
        assert rewards[1] == reward
    environments.close()


def test_without_a_seed_the_next_episode_is_another_one():
    environment = gymnasium.make("safer_offline/SafetyBallRun-v0")
    first, second = environment.reset(seed=3)[0], environment.reset()[0]
    assert not np.array_equal(first, second)
    assert np.array_equal(environment.reset(seed=3)[0], first)
    assert np.array_equal(environment.reset()[0], second)


def test_pictures_show_the_robot_move():
    environment = gymnasium.make("safer_offline/SafetyAntRun-v0", render_mode="rgb_array")
    environment.reset(seed=0)
    before = environment.render()
    for _ in range(5):
        environment.step(np.ones(8, dtype=np.float32))
    after = environment.render()
    assert before.shape == after.shape == (360, 480, 3)
    assert before.dtype == np.uint8
    assert 0.001 < np.mean(before != after) < 0.9
    assert len(np.unique(before.reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (np.zeros(3), "must be 2 finite numbers"),
        (np.zeros((1, 2)), "shape (1, 2)"),
        (np.array([0.0, np.nan]), "must be 2 finite numbers"),
        (np.array([np.inf, 0.0]), "must be 2 finite numbers"),
    ],
)
def test_an_impossible_action_is_refused_before_it_acts(action, told):
    environment = BulletEnvironment(robot="Ball", task="Run")
    environment.reset(seed=0)
    with pytest.raises(UsageError, match=re.escape(told)):
        environment.step(action)
    after, *_ = environment.step(np.ones(2))
    environment.reset(seed=0)
    np.testing.assert_array_equal(environment.step(np.ones(2))[0], after)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "7"])
def test_an_impossible_seed_is_refused(seed):
    environment = BulletEnvironment(robot="Ball", task="Run")
    with pytest.raises(UsageError, match="a seed must be"):
        environment.reset(seed=seed)


def test_a_closed_environment_says_that_it_is():
    environment = BulletEnvironment(robot="Ball", task="Run")
    environment.close()
    environment.close()
    for use in (lambda: environment.reset(seed=0), lambda: environment.step(np.zeros(2))):
        with pytest.raises(SaferOfflineError, match="closed"):
            use()


@pytest.mark.parametrize(
    "settings",
    [
        {"robot": "Bal", "task": "Run"},
        {"robot": "Ball", "task": "Walk"},
        {"robot": "Ball", "task": "Run", "render_mode": "human"},
    ],
)
def test_an_unknown_robot_task_or_mode_is_refused(settings):
    with pytest.raises(UsageError):
        BulletEnvironment(**settings)
