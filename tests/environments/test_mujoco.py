"""Velocity tasks: Gymnasium's robots as they are, and a cost of 1 for a step that is too fast."""

import concurrent.futures
import json
import multiprocessing
import subprocess
import sys
import types

import gymnasium
import numpy as np
import pytest

from safer_offline.environments.checking.checks import check_environment
from safer_offline.environments.mujoco import SpeedLimit, make_robot, require_mujoco
from safer_offline.environments.source import EnvironmentSource
from safer_offline.environments.tasks import VELOCITY_IDS, simulators_of
from safer_offline.environments.vector import VectorEnvironment
from safer_offline.errors import MissingSimulatorError, SaferOfflineError, UsageError
from safer_offline.registration import VELOCITY_TASKS, registered_id

ANT = "SafetyAntVelocity-v1"

# Numbers in an observation and in an action, as in Safety-Gymnasium; the Humanoid observes 28
# numbers less, which are always zero there.
SIZES = {
    "SafetyHalfCheetahVelocity-v1": (17, 6),
    "SafetyHopperVelocity-v1": (11, 3),
    "SafetyWalker2dVelocity-v1": (17, 6),
    "SafetyAntVelocity-v1": (27, 8),
    "SafetySwimmerVelocity-v1": (8, 2),
    "SafetyHumanoidVelocity-v1": (348, 17),
}

# From the documentation of Safety-Gymnasium (docs/environments/safe_velocity.rst).
PUBLISHED_LIMITS = {
    "SafetyHopperVelocity-v1": 0.7402,
    "SafetyAntVelocity-v1": 2.6222,
    "SafetyHumanoidVelocity-v1": 1.4149,
    "SafetyWalker2dVelocity-v1": 2.3415,
    "SafetyHalfCheetahVelocity-v1": 3.2096,
    "SafetySwimmerVelocity-v1": 0.2282,
}


def _simulates():
    try:
        require_mujoco()
    except MissingSimulatorError:
        return False
    return True


simulates = pytest.mark.skipif(not _simulates(), reason="needs MuJoCo and Gymnasium 1.0")


def drive(environment, seed, steps=60):
    """All numbers of the first steps of an episode; the actions are a function of the seed."""
    generator = np.random.default_rng(seed)
    numbers = [environment.reset(seed)]
    for _ in range(steps):
        step = environment.step(generator.uniform(-1, 1, environment.action_space.shape))
        numbers.append(np.array([*step.observation, step.reward, step.cost, step.terminated]))
        if step.terminated or step.truncated:
            break
    return np.concatenate(numbers).tobytes()


def drive_anew(env_id, seed):
    """`drive` in whatever process this runs in."""
    return drive(EnvironmentSource(name=env_id).make(), seed)


# What the tasks are


def test_the_list_of_tasks_and_their_definitions_agree():
    assert tuple(VELOCITY_TASKS) == VELOCITY_IDS == tuple(SIZES)
    assert {env_id: task.speed_limit for env_id, task in VELOCITY_TASKS.items()} == PUBLISHED_LIMITS
    assert all(simulators_of(env_id) == ("mujoco",) for env_id in VELOCITY_IDS)


@simulates
@pytest.mark.parametrize("env_id", VELOCITY_IDS)
def test_sizes_and_step_limit(env_id):
    environment = EnvironmentSource(name=env_id).make()
    sizes = environment.observation_space.shape[0], environment.action_space.shape[0]
    assert sizes == SIZES[env_id]
    assert environment.max_episode_steps == 1000
    assert environment.env_id == env_id


@simulates
@pytest.mark.parametrize("env_id", VELOCITY_IDS)
def test_but_for_the_cost_it_is_gymnasiums_robot(env_id):
    task = VELOCITY_TASKS[env_id]
    ours = gymnasium.make(registered_id(env_id))
    plain = make_robot(task.robot, **task.settings)
    assert np.array_equal(ours.reset(seed=4)[0], plain.reset(seed=4)[0])
    ours.action_space.seed(4)
    for _ in range(30):
        action = ours.action_space.sample()
        observation, *outcome, info = ours.step(action)
        expected, *expected_outcome, expected_info = plain.step(action)
        assert np.array_equal(observation, expected)
        assert outcome == expected_outcome
        assert info.keys() - expected_info.keys() == {"cost"}
        if outcome[1]:
            break


def step_at_speed(env_id, x, y):
    """Cost of a step that begins with this velocity, and the mean velocity during it."""
    environment = gymnasium.make(registered_id(env_id))
    environment.reset(seed=0)
    body = environment.unwrapped
    velocity = body.init_qvel.copy()
    velocity[0] = x
    if "y_position" in environment.step(np.zeros(environment.action_space.shape))[4]:
        velocity[1] = y
    # Well above the floor, whose friction would slow it down.
    position = body.init_qpos.copy()
    if env_id != "SafetySwimmerVelocity-v1":
        position[1 if len(body.init_qpos) < 10 else 2] += 0.3
    body.set_state(position, velocity)
    info = environment.step(np.zeros(environment.action_space.shape))[4]
    return info["cost"], (info["x_velocity"], info.get("y_velocity", 0.0))


@simulates
@pytest.mark.parametrize("env_id", VELOCITY_IDS)
def test_too_fast_costs_one_and_just_below_the_limit_nothing(env_id):
    limit = VELOCITY_TASKS[env_id].speed_limit
    for factor, expected in ((0.8, 0.0), (1.3, 1.0)):
        cost, (x, _) = step_at_speed(env_id, factor * limit, 0.0)
        assert x == pytest.approx(factor * limit, rel=0.15)  # else this would show nothing
        assert cost == expected


@simulates
@pytest.mark.parametrize(
    ("env_id", "planar"),
    [(env_id, env_id.startswith(("SafetyAnt", "SafetyHumanoid"))) for env_id in VELOCITY_IDS],
)
def test_only_the_robots_of_the_plane_pay_for_speed_backwards_and_sideways(env_id, planar):
    limit = VELOCITY_TASKS[env_id].speed_limit
    cost, (x, _) = step_at_speed(env_id, -1.5 * limit, 0.0)
    assert x < -1.2 * limit
    assert cost == planar
    if planar or env_id == "SafetySwimmerVelocity-v1":
        cost, (_, y) = step_at_speed(env_id, 0.0, 1.5 * limit)
        assert y > 1.2 * limit
        assert cost == planar
    if planar:  # neither alone, but both together
        cost, (x, y) = step_at_speed(env_id, 0.85 * limit, 0.85 * limit)
        assert max(x, y) < limit
        assert cost == 1


class Recorded(gymnasium.Env):
    """Reports whatever speeds it was given."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def step(self, action):
        x, y = self.speeds
        return np.zeros(1, np.float32), 0.0, False, False, {"x_velocity": x, "y_velocity": y}


@pytest.mark.parametrize(
    ("planar", "speeds", "cost"),
    [
        (False, (5.0, 9.0), 0),  # exactly at the limit
        (False, (np.nextafter(5.0, 6), 0.0), 1),
        (False, (-9.0, 0.0), 0),
        (True, (3.0, -4.0), 0),
        (True, (np.nextafter(-3.0, -4), -4.1), 1),
        (True, (-9.0, 0.0), 1),
    ],
)
def test_the_limit_itself_is_allowed(planar, speeds, cost):
    environment = SpeedLimit(Recorded(), speed_limit=5.0, planar=planar)
    environment.unwrapped.speeds = speeds
    assert environment.step(np.zeros(1))[4]["cost"] == cost


@pytest.mark.parametrize("action", [[0.0, 0.0], 0.0, [np.nan], [np.inf], [[0.0]]])
def test_impossible_actions_are_refused(action):
    environment = SpeedLimit(Recorded(), speed_limit=5.0)
    with pytest.raises(UsageError, match=r"finite numbers of shape \(1,\)"):
        environment.step(np.array(action))


# Episodes


@simulates
@pytest.mark.parametrize("env_id", [ANT, "SafetyHalfCheetahVelocity-v1"])
def test_an_episode_is_the_same_bits_after_any_history_and_in_any_process(env_id):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        elsewhere = pool.submit(drive_anew, env_id, 5)
        environment = EnvironmentSource(name=env_id).make()
        first = drive(environment, 5)
        drive(environment, 6)
        np.random.seed(3)
        assert drive(environment, 5) == first
        assert drive(environment, 6) != first
        assert elsewhere.result() == first


@simulates
def test_the_step_limit_cuts_an_episode_off():
    environment = EnvironmentSource(name="halfcheetah-velocity").make()
    environment.reset(0)
    steps = [environment.step(np.zeros(6)) for _ in range(1000)]
    assert [step.truncated for step in steps] == [False] * 999 + [True]
    assert not any(step.terminated for step in steps)


@simulates
def test_a_fall_ends_an_episode():
    environment = EnvironmentSource(name="hopper-velocity").make()
    environment.reset(0)
    steps = [environment.step(np.ones(3)) for _ in range(60)]
    assert any(step.terminated for step in steps)


@simulates
def test_many_run_at_once():
    with VectorEnvironment("ant-velocity", num_envs=2, workers=1) as environments:
        seen = environments.reset([3, 4])
        assert seen.shape == (2, 27)
        assert environments.step(np.zeros((2, 8))).costs.shape == (2,)


# Names and registration


@pytest.mark.parametrize(
    "name",
    [
        "ant-velocity",
        "ant_velocity",
        ANT,
        ANT.lower(),
        f"safer_offline:{ANT}",
        f"safer_offline/{ANT}",
        f"safer_offline:safer_offline/{ANT}",
    ],
)
def test_all_names_of_a_task_mean_it(name):
    assert EnvironmentSource(name=name).env_id == ANT


def test_half_cheetahs_may_have_a_hyphen():
    for name in ("half-cheetah-velocity", "halfcheetah-velocity", "HalfCheetah_velocity"):
        assert EnvironmentSource(name=name).env_id == "SafetyHalfCheetahVelocity-v1"


@simulates
@pytest.mark.filterwarnings("ignore::UserWarning")  # that a wrapper is around, and no bounds
@pytest.mark.parametrize("env_id", VELOCITY_IDS)
def test_gymnasium_makes_checks_and_remakes_it(env_id):
    from gymnasium.utils.env_checker import check_env

    environment = gymnasium.make(f"safer_offline:{env_id}")
    check_env(environment, skip_render_check=True)
    again = gymnasium.make(type(environment.spec).from_json(environment.spec.to_json()))
    action = np.ones(environment.action_space.shape, np.float32)
    for one in (environment, again):
        one.reset(seed=1)
    assert environment.step(action)[4]["cost"] == again.step(action)[4]["cost"]
    for one, other in zip(environment.reset(seed=1), again.reset(seed=1), strict=True):
        np.testing.assert_equal(one, other)


@simulates
def test_gymnasiums_vectors_run_it():
    environments = gymnasium.make_vec(registered_id(ANT), num_envs=2)
    environments.reset(seed=0)
    info = environments.step(environments.action_space.sample())[4]
    assert info["cost"].tolist() == [0.0, 0.0]


@simulates
def test_settings_reach_the_robot():
    source = EnvironmentSource(name=ANT, kwargs={"include_cfrc_ext_in_observation": True})
    assert source.make().observation_space.shape == (105,)
    with pytest.raises(SaferOfflineError, match="wings"):
        EnvironmentSource(name=ANT, kwargs={"wings": 2}).make()


@simulates
def test_our_own_check_finds_nothing_wrong():
    report = check_environment("hopper-velocity", episodes=2, seconds=5.0)
    assert [finding for finding in report.findings if finding.severity == "error"] == []


FOREIGN = """
import gymnasium
gymnasium.register("SafetyAntVelocity-v1", entry_point="somebody:Else")
from safer_offline.environments.source import EnvironmentSource
assert gymnasium.spec("SafetyAntVelocity-v1").entry_point == "somebody:Else"
ours = gymnasium.spec("safer_offline/SafetyAntVelocity-v1")
assert ours.entry_point == "safer_offline.environments.mujoco:make_robot"
if {simulates}:
    assert EnvironmentSource(name="ant-velocity").make().observation_space.shape == (27,)
"""


def test_tasks_of_the_same_name_are_left_alone():
    code = FOREIGN.format(simulates=_simulates())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@simulates
def test_nothing_is_written_where_it_runs(tmp_path):
    """MuJoCo would leave a log, and say at each start that Gymnasium's cheetah is out of date."""
    code = (
        "from safer_offline.environments.source import EnvironmentSource\n"
        "EnvironmentSource(name='halfcheetah-velocity').make().reset(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@simulates
def test_a_dataset_can_tell_gymnasium_what_to_make():
    spec = EnvironmentSource(name=ANT).make().spec
    told = json.loads(json.dumps(spec))
    assert told["additional_wrappers"][0]["kwargs"] == {"speed_limit": 2.6222, "planar": True}


# What is missing


@pytest.mark.parametrize("package", ["mujoco", "imageio"])
def test_without_mujoco_the_message_says_what_to_install(package, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", types.ModuleType("mujoco"))
    monkeypatch.setitem(sys.modules, package, None)  # importing it raises ImportError
    for make in (EnvironmentSource(name=ANT).make, lambda: make_robot("Ant-v5")):
        with pytest.raises(MissingSimulatorError) as caught:
            make()
        assert f"the package '{package}'" in str(caught.value)
        assert 'pip install "safer-offline[mujoco]"' in str(caught.value)


def test_a_package_that_only_bears_the_name_is_noticed(monkeypatch):
    for package in ("mujoco", "imageio"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    with pytest.raises(MissingSimulatorError, match=r"no simulator.*safer-offline\[mujoco\]"):
        EnvironmentSource(name=ANT).make()


def test_an_old_gymnasium_is_noticed(monkeypatch):
    simulator = types.ModuleType("mujoco")
    simulator.MjModel = object
    monkeypatch.setitem(sys.modules, "mujoco", simulator)
    monkeypatch.setitem(sys.modules, "imageio", types.ModuleType("imageio"))
    monkeypatch.setattr(gymnasium, "registry", {})
    with pytest.raises(MissingSimulatorError, match=r"Gymnasium 1\.0 or newer"):
        make_robot("Ant-v5")
