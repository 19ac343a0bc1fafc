"""Environments by name: what each name means, and that all are driven alike."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import toy_environments

from safer_offline.context import EnvironmentContext
from safer_offline.environments.bullet.simulated import SafetyEnvironment
from safer_offline.environments.gymnasium_adapter import GymnasiumEnvironment
from safer_offline.environments.source import EnvironmentSource
from safer_offline.environments.vector import VectorEnvironment
from safer_offline.errors import DataError, SaferOfflineError, UsageError
from safer_offline.evaluation.harness import evaluate

POINT = "toy_environments:Point"


def make(name, **settings):
    return EnvironmentSource(name=f"toy_environments:{name}", **settings).make()


def drive(environment, seed=3, steps=10):
    numbers = [environment.reset(seed)]
    for t in range(steps):
        step = environment.step(np.array([np.sin(t), 1.0]))
        numbers.append(np.array([*step.observation, step.reward, step.cost]))
    return np.concatenate(numbers).tobytes()


# Names


@pytest.mark.parametrize(
    ("name", "env_id", "limit"),
    [
        (POINT, POINT, 30),
        ("toy_environments:make_point", "toy_environments:make_point", 20),
        ("toy_environments:ToyPoint-v0", "toy_environments:ToyPoint-v0", 25),
        ("ToyPoint-v0", "ToyPoint-v0", 25),
        ("ball_circle", "SafetyBallCircle-v0", 200),
        ("SafetyBallCircle-v0", "SafetyBallCircle-v0", 200),
    ],
)
def test_each_kind_of_name_makes_its_environment(name, env_id, limit):
    source = EnvironmentSource(name=name)
    environment = source.make()
    assert source.env_id == environment.env_id == env_id
    assert environment.max_episode_steps == limit
    assert environment.reset(0).dtype == np.float32
    environment.close()
    limited = EnvironmentSource(name=name, max_episode_steps=7).make()
    assert limited.max_episode_steps == 7
    limited.reset(0)
    steps = [limited.step(limited.action_space.low) for _ in range(7)]
    assert [step.truncated for step in steps] == [False] * 6 + [True]
    limited.close()


def test_specifications_are_those_of_gymnasium_and_factories_have_none():
    assert make("ToyPoint-v0").spec["id"] == "ToyPoint-v0"
    assert EnvironmentSource(name="ball-circle").make().spec["id"] == "SafetyBallCircle-v0"
    assert make("make_point").spec is None
    json.dumps(make("ToyPoint-v0").spec)


def test_sources_are_values():
    one = EnvironmentSource(name=POINT, kwargs={"speed": 0.5, "border": 1})
    other = pickle.loads(pickle.dumps(EnvironmentSource(name=POINT, kwargs=dict(one.kwargs))))
    assert one == other
    assert hash(one) == hash(other)
    assert one != EnvironmentSource(name=POINT)
    assert drive(one.make()) == drive(other.make()) != drive(make("Point"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toy_environments:Pont", "nearest known one is 'Point'"),
        ("toy_environments:ToyPoint-v1", "nearest known one is 'ToyPoint-v0'"),
        ("toy_environment:Point", "no module 'toy_environment'"),
        ("nowhere.at.all:Point", "no module 'nowhere'"),
        ("toy_environments.py:Point", "'toy_environments:Point'"),
        ("folder/mine.py:make", "'folder.mine:make'"),
        ("toy_environments:", "write 'module:function'"),
        (":Point", "write 'module:function'"),
        ("toy_environments:a_number", "is a int, not a function"),
        ("toy_environments:an_instance", "each process makes its own"),
        ("toy_environments:NotAnEnvironment", "NotAnEnvironment, which is no gymnasium.Env"),
        ("toy_environments:returns_nothing", "lack a return"),
        ("ToyPont-v0", "nearest known one is 'ToyPoint-v0'"),
        ("car-circel", "nearest known one is 'SafetyCarCircle-v0'"),
        ("Pendulum", "nearest known one is 'Pendulum-v1'"),
        ("", "unknown environment ''"),
    ],
)
def test_wrong_names_end_with_a_hint(name, message):
    with pytest.raises(UsageError) as caught:
        EnvironmentSource(name=name).make()
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kwargs": {"speeed": 1}}, "does not take these arguments .speeed."),
        ({"kwargs": {"speed": float("nan")}}, "JSON"),
        ({"kwargs": {"speed": print}}, "JSON"),
        ({"cost_key": ""}, "cost key"),
        ({"max_episode_steps": 0}, "at least 1"),
        ({"name": "ball-circle", "kwargs": {"a": 1}}, "takes no arguments, but got a"),
        ({"name": "ball-circle", "cost_key": "risk"}, "is 'cost', not 'risk'"),
        ({"name": "toy_environments:SilentLimit"}, "(?s)how many steps.*--max-episode-steps"),
        ({"name": "toy_environments:DictObservations"}, "FlattenObservation"),
        ({"name": "CartPole-v1"}, "action space must be a Box"),
        ({"name": "toy_environments:UnboundedActions"}, "finite bounds"),
    ],
)
def test_impossible_sources_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        EnvironmentSource(**{"name": POINT} | settings).make()


def test_failures_of_the_users_code_say_where(tmp_path, monkeypatch):
    with pytest.raises(SaferOfflineError, match=r"no licence found \(.*toy_environments.py, line"):
        make("cannot_be_made")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("needs_more.py").write_text("import not_installed_at_all\n")
    with pytest.raises(SaferOfflineError, match=r"'needs_more' failed.*not_installed_at_all"):
        EnvironmentSource(name="needs_more:make").make()
    Path("wrong_syntax.py").write_text("def make(:\n")
    with pytest.raises(SaferOfflineError, match="'wrong_syntax' failed: SyntaxError"):
        EnvironmentSource(name="wrong_syntax:make").make()


# Driving


def test_observations_are_kept_and_actions_are_clipped():
    environment = make("Point")
    first = environment.reset(1)
    kept = first.copy()
    step = environment.step(np.array([50.0, -50.0]))  # the toy asserts that actions are in bounds
    assert np.array_equal(first, kept)
    np.testing.assert_allclose(step.observation, kept + np.float32([0.2, -0.2]), rtol=1e-6)
    assert step.observation.dtype == np.float32


def test_same_seed_same_episode_in_the_same_and_another_environment():
    environment = make("Point")
    assert drive(environment) == drive(environment) == drive(make("Point"))
    assert drive(environment) != drive(environment, seed=4)


def test_an_end_is_terminal_or_a_timeout_not_both():
    environment = make("TerminatesToo")
    environment.reset(0)
    steps = [environment.step(np.zeros(2)) for _ in range(30)]
    assert (steps[-1].terminated, steps[-1].truncated) == (True, False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("OtherKey", r"no 'cost' after step 1; it holds 'constraint_cost', 't'.*--cost-key"),
        ("CostIsText", r"info\['cost'\] is no number: 'high'"),
        ("CostIsArray", r"info\['cost'\] is no number"),
        ("NegativeCost", "not negative"),
        ("NanCost", "must be finite"),
        ("NanReward", "the reward of step 1 is nan"),
        ("NanObservation", "not finite.*after 4 steps"),
        ("WrongShape", r"shape \(3,\).*says \(2,\)"),
        ("OldStep", "returned 4 values"),
        ("SixValues", "SafetyGymnasium2Gymnasium"),
        ("OldReset", r"\(observation, info\)"),
    ],
)
def test_environments_that_break_their_word_are_stopped(name, message):
    environment = make(name, kwargs={"border": -9})
    with pytest.raises(SaferOfflineError, match=message):
        drive(environment)


@pytest.mark.parametrize("value", [True, 1, np.float32(1), np.array(1.0), torch.tensor(1.0)])
def test_costs_are_numbers_of_any_library(value):
    class Environment(toy_environments.Point):
        def cost(self):
            return value

    environment = GymnasiumEnvironment(Environment(), env_id="mine")
    environment.reset(0)
    assert environment.step(np.zeros(2)).cost == 1.0


def test_the_smallest_step_limit_counts():
    inner = gymnasium.wrappers.TimeLimit(toy_environments.Endless(), 12)
    outer = gymnasium.wrappers.TimeLimit(inner, 40)
    assert GymnasiumEnvironment(outer, env_id="mine").max_episode_steps == 12
    assert GymnasiumEnvironment(outer, env_id="mine", max_episode_steps=5).max_episode_steps == 5


# Batches


def play(workers):
    numbers = []
    source = EnvironmentSource(name=POINT, kwargs={"speed": 0.3})
    with VectorEnvironment(source, num_envs=3, workers=workers) as batch:
        assert batch.env_id == POINT
        for start in (0, 10):
            numbers.append(batch.reset([start, start + 1, start + 2]))
            generator = np.random.default_rng(start)
            while not batch.done.all():
                numbers.extend(batch.step(generator.uniform(-2, 2, (3, 2))))
    return [array.tobytes() for array in numbers]


def test_processes_change_nothing():
    assert play(2) == play(0)


def test_what_fails_in_a_process_is_told_with_its_place():
    with VectorEnvironment("toy_environments:Crash", num_envs=1, workers=1) as batch:
        batch.reset([0])
        for _ in range(3):
            batch.step(np.zeros((1, 2)))
        with pytest.raises(SaferOfflineError, match=r"(?s)toy_environments.py.*the arm is stuck"):
            batch.step(np.zeros((1, 2)))
    with VectorEnvironment("toy_environments:NoCost", num_envs=1, workers=1) as batch:
        batch.reset([0])
        with pytest.raises(SaferOfflineError, match="no 'cost'"):
            batch.step(np.zeros((1, 2)))


IN_A_FOLDER = """
import sys
from safer_offline.environments.source import EnvironmentSource
from safer_offline.environments.vector import VectorEnvironment

if __name__ == "__main__":
    sys.path[:] = [path for path in sys.path if path not in ("", {folder!r})]
    with VectorEnvironment("mine:Point", num_envs=2, workers=1) as batch:
        batch.reset([0, 1])
        print(batch.step([[0, 0], [0, 0]]).observations.shape)
"""


def test_modules_in_the_current_folder_are_found_in_other_processes_too(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from neighbour import Point\n"  # the module's own imports come from there as well
    )
    source = Path(toy_environments.__file__).read_text()
    (tmp_path / "neighbour.py").write_text(source)
    script = tmp_path / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(IN_A_FOLDER.format(folder=str(tmp_path)))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(2, 2)"


# Evaluation


class Still:
    """Does what it sees; its cost critic fears the right."""

    observation_size = action_size = 2
    observation_std = torch.ones(2)
    context = EnvironmentContext(env_id=POINT, cost_key="cost", kwargs={})
    cost_limit = 5.0
    reward_range = None

    def action_distribution(self, observations):
        return torch.tanh(observations), torch.full_like(observations, 0.1)

    def q_reward(self, observations, actions):
        return actions[:, 1]

    def q_cost(self, observations, actions):
        return (observations * actions).sum(-1)

    def predict(self, observations):
        return np.tanh(observations)


def test_policies_are_evaluated_in_environments_of_ones_own():
    settings = {"attacks": "natural,uniform", "episodes": 3, "progress": False}
    report = evaluate(Still(), env=POINT, workers=0, **settings)
    assert report.env_id == POINT
    assert (report.episodes["length"] == 30).all()
    assert report.summary()["normalised_cost"].notna().all()
    assert report.summary()["normalised_reward"].isna().all()
    again = evaluate(Still(), env=EnvironmentSource(name=POINT), workers=1, **settings)
    assert again.episodes.equals(report.episodes)
    other = EnvironmentSource(name=POINT, max_episode_steps=9, kwargs={"border": -100})
    short = evaluate(Still(), env=other, workers=0, **settings)
    assert (short.episodes["cost"] == 9).all()


def test_evaluation_says_what_does_not_fit():
    with (
        pytest.warns(UserWarning, match="trained for toy_environments:Point"),
        pytest.raises(DataError, match="size 2, but SafetyBallCircle-v0"),
    ):
        evaluate(Still(), env="ball-circle", episodes=1)
    with pytest.raises(SaferOfflineError, match="--cost-key"):
        evaluate(Still(), env=EnvironmentSource(name=POINT, cost_key="risk"), workers=0, episodes=1)


def test_bullet_tasks_are_the_repaired_ones():
    repaired = EnvironmentSource(name="ball-circle").make()
    assert isinstance(repaired, SafetyEnvironment)
    repaired.close()
