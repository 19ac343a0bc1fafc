"""The environment that a dataset comes from, carried through to the evaluation's report."""

import dataclasses
import json
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from toy_environments import Point

from safer_offline import SAFERConfig, evaluate, load_policy, train
from safer_offline.context import BoxSpace, EnvironmentContext, same_name
from safer_offline.datasets import Metadata, collect, load_dataset, merge_datasets
from safer_offline.datasets.collection.recipe import Actor, Recipe, load_recipe
from safer_offline.datasets.formats import is_minari_id
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import UsageError
from safer_offline.evaluation.task import describe_differences, environment_of

KNOWN = EnvironmentContext(
    env_id="my.robots:Arm",
    kwargs={"radius": 0.6, "goals": [1, 2]},
    cost_key="collision",
    max_episode_steps=25,
    observation_space=BoxSpace(low=(-np.inf, 0.0), high=(np.inf, 1.0)),
    action_space=BoxSpace(low=(-2.0,), high=(2.0,)),
    versions={"gymnasium": "1.0"},
)


class Corridor(Point):
    """Its info holds two numbers that could be the cost; one of them is always zero."""

    def __init__(self, speed=0.1, border=0.3, radius=0.0):
        super().__init__(speed, border)
        self.radius = radius

    def info(self):
        collision = float(self.x[0] + self.radius > 0.3)
        return {"cost": 0.0, "collision": collision}


gymnasium.register("Corridor-v0", entry_point="test_context:Corridor", max_episode_steps=25)
HERE = "test_context:Corridor"


def act(observation):
    return [0.5, 0.2]


# The object


def test_json_and_back():
    for context in (KNOWN, EnvironmentContext(), dataclasses.replace(KNOWN, kwargs={})):
        text = json.dumps(context.to_json())
        assert EnvironmentContext.from_json(json.loads(text)) == context
    later = KNOWN.to_json() | {"gravity": 9.81}
    assert EnvironmentContext.from_json(later) == KNOWN


def test_only_what_both_know_can_differ():
    assert not KNOWN.differences(EnvironmentContext())
    assert not EnvironmentContext().differences(KNOWN)
    assert not KNOWN.differences(dataclasses.replace(KNOWN, versions={}))
    none = dataclasses.replace(KNOWN, kwargs={})
    (difference,) = KNOWN.differences(none)
    assert (difference.name, difference.actual) == ("kwargs", {})
    assert not KNOWN.is_task_of(none)
    assert KNOWN.is_task_of(dataclasses.replace(KNOWN, cost_key="cost"))


def test_ids_of_gymnasium_may_have_their_module_in_front():
    assert same_name("robots:Arm-v0", "Arm-v0")
    assert not same_name("robots:make", "other:make")


# Behaviours


def test_a_run_as_a_behaviour_carries_what_it_was_trained_for(collected, tmp_path):
    data = load_dataset(collected(cost_key="collision", kwargs={"radius": 0.6}))
    config = SAFERConfig(
        cost_limit=500, hidden_sizes=(8, 8), recovery_states=20, batch_size=16, candidates=3
    )
    train(config, data, out=tmp_path / "run", steps=4, progress=False)
    actor = Actor(policy=f"checkpoint:{tmp_path / 'run'}")
    same = Recipe(
        environment=EnvironmentSource(name=HERE, cost_key="collision", kwargs={"radius": 0.6}),
        behaviors=(actor,),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = collect(same, tmp_path / "same.h5", transitions=60, workers=1, progress=False)
    (policy,) = again.metadata.behavior_policies
    told = policy.parameters["trained_for"]
    assert told["kwargs"] == {"radius": 0.6}
    assert told["cost_key"] == "collision"
    other = dataclasses.replace(same, environment=EnvironmentSource(name=HERE))
    with pytest.warns(UserWarning, match=r"trained with kwargs .*0.6.* and cost_key 'collision'"):
        collect(other, tmp_path / "other.h5", transitions=60, workers=1, progress=False)


class Seeded:
    """Takes the episode's generator, as it should."""

    def __init__(self, generator):
        self._generator = generator

    def __call__(self, observation):
        return self._generator.uniform(-1, 1, 2)


own_generator = np.random.default_rng(0)


def moody(observation):
    """Acts at random now and then, out of a generator of its own."""
    return [0.5, float(own_generator.random() < 0.05)]


def test_policies_with_randomness_of_their_own_are_noticed(collected, tmp_path):
    def collect_by(policy):
        one = dataclasses.replace(recipe(), behaviors=(Actor(policy=policy),))
        path = tmp_path / f"{policy.rpartition(':')[2]}.h5"
        return collect(one, path, transitions=60, workers=1, progress=False)

    with pytest.warns(UserWarning, match=r"test_context:moody acts differently .* --workers"):
        collect_by("test_context:moody")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collect_by("test_context:Seeded")
        collect_by("test_context:act")


# Names


def test_a_dataset_cut_short_does_not_bear_the_name_of_the_published_one():
    published = load_recipe("car-circle")
    assert published.instead() is published
    assert published.instead(transitions=published.transitions, seed=published.seed) is published
    short = published.instead(transitions=12_000, seed=3)
    assert short.name == "bullet/car-circle/mixed-n12000-seed3-v1"
    assert is_minari_id(short.name)
    assert "transitions 12,000 instead of 360,000 and seed 3 instead of 0" in short.description
    assert (short.transitions, short.seed) == (12_000, 3)
    assert dataclasses.replace(published, name="").instead(seed=3).name == ""
    assert dataclasses.replace(published, name="mine").instead(seed=3).name == "mine-seed3"


# What an evaluation makes of it


def test_what_is_carried_is_made_again():
    source = environment_of(dataclasses.replace(KNOWN, env_id=HERE))
    assert source == EnvironmentSource(
        name=HERE, kwargs=KNOWN.kwargs, cost_key="collision", max_episode_steps=25
    )


def test_what_is_given_replaces_what_is_carried():
    carried = dataclasses.replace(KNOWN, env_id=HERE)
    source = environment_of(carried, kwargs={"radius": 1.0}, cost_key="cost", max_episode_steps=9)
    assert source.kwargs == {"radius": 1.0, "goals": [1, 2]}
    assert (source.cost_key, source.max_episode_steps) == ("cost", 9)


def test_another_environment_has_nothing_to_do_with_what_is_carried():
    source = environment_of(KNOWN, env=HERE)
    assert source == EnvironmentSource(name=HERE)


def test_what_nobody_knows_is_asked_for():
    with pytest.raises(UsageError, match="--env"):
        environment_of(EnvironmentContext())
    old = EnvironmentContext(env_id=HERE)
    with pytest.raises(UsageError, match="--cost-key"):
        environment_of(old)
    assert environment_of(old, cost_key="collision").cost_key == "collision"
    # Our own tasks have one cost, and Bullet ones no arguments.
    assert environment_of(EnvironmentContext(env_id="SafetyCarRun-v0")).cost_key == "cost"


def test_differences_are_told_in_a_sentence():
    other = dataclasses.replace(KNOWN, cost_key="cost", max_episode_steps=30)
    told = describe_differences(KNOWN, other)
    assert "the cost key 'cost' instead of 'collision'" in told
    assert "a step limit of 30 instead of 25" in told
    assert describe_differences(KNOWN, KNOWN) == ""
    elsewhere = dataclasses.replace(KNOWN, env_id="x:y")
    assert "trained for my.robots:Arm and is evaluated in x:y" in describe_differences(
        KNOWN, elsewhere
    )


# From the simulator to the report


def recipe(**source):
    return Recipe(
        environment=EnvironmentSource(name=HERE, **source),
        behaviors=(Actor(policy="test_context:act"),),
    )


@pytest.fixture
def collected(tmp_path, monkeypatch):
    def make(name="d.h5", **source):
        path = tmp_path / name
        collect(recipe(**source), path, transitions=900, workers=1, progress=False)
        return path

    monkeypatch.syspath_prepend(str(__file__).rpartition("/")[0])
    return make


def test_a_file_tells_where_it_comes_from(collected):
    path = collected(cost_key="collision", kwargs={"radius": 0.6}, max_episode_steps=20)
    context = load_dataset(path).metadata.context
    assert context.env_id == HERE
    assert context.kwargs == {"radius": 0.6}
    assert (context.cost_key, context.max_episode_steps) == ("collision", 20)
    assert context.observation_space.size == context.action_space.size == 2
    assert "gymnasium" in context.versions


def test_older_files_tell_the_cost_key_in_their_recipe():
    attributes = Metadata(env_id=HERE, recipe=recipe(cost_key="collision").to_toml())
    old = Metadata.from_attributes(attributes.to_attributes())
    assert (old.context.cost_key, old.context.kwargs) == ("collision", {})
    usual = Metadata(env_id=HERE, recipe=recipe().to_toml()).to_attributes()
    assert Metadata.from_attributes(usual).cost_key == "cost"
    foreign = Metadata.from_attributes(Metadata(env_id=HERE).to_attributes()).context
    assert (foreign.cost_key, foreign.kwargs) == (None, None)
    broken = Metadata(env_id=HERE, recipe="no = [toml").to_attributes()
    assert Metadata.from_attributes(broken).cost_key is None


@pytest.mark.filterwarnings("ignore")
def test_a_merge_of_different_arguments_does_not_claim_that_there_were_none(collected):
    parts = [load_dataset(collected(f"{r}.h5", kwargs={"radius": r})) for r in (0.1, 0.6)]
    joint = merge_datasets(parts).metadata.context
    assert (joint.kwargs, joint.cost_key) == (None, None)
    same = merge_datasets([parts[0], parts[0]]).metadata.context
    assert (same.kwargs, same.cost_key) == ({"radius": 0.1}, "cost")


@pytest.mark.parametrize(
    "source",
    [{"cost_key": "collision"}, {"cost_key": "collision", "kwargs": {"radius": 0.6}}],
    ids=["two costs", "arguments"],
)
def test_the_printed_next_command_reports_the_truth(collected, tmp_path, source):
    """Evaluated with another cost or other arguments, this policy would look safe."""
    data = collected(**source)
    train = ("train", data, "--cost-limit", 500, "--steps", 4, "-o", tmp_path / "a run")
    small = ("--set", "hidden_sizes=8,8", "--set", "recovery_states=20", "--set", "batch_size=16")
    output = run(*train, *small)
    (command,) = [line for line in output.splitlines() if line.startswith("Next: ")]
    words = command.removeprefix("Next: safer-offline ")
    shown = run(shell=f"{words} --attacks natural --episodes 8 --workers 0 --cost-limit 1 --json")
    report = json.loads(shown)
    assert report["config"]["environment"]["cost_key"] == "collision"
    assert report["config"]["environment"]["kwargs"] == source.get("kwargs", {})
    assert report["differences"] == ""
    truth = evaluate(
        load_policy(tmp_path / "a run"),
        env=EnvironmentSource(name=HERE, **source),
        attacks="natural",
        episodes=8,
        workers=0,
        cost_limit=1,
        progress=False,
    )
    assert report["summary"][0]["cost_mean"] == truth.summary()["cost_mean"].iloc[0] > 1
    with pytest.warns(UserWarning, match="the cost key 'cost' instead of 'collision'"):
        wrong = evaluate(
            load_policy(tmp_path / "a run"),
            env=EnvironmentSource(name=HERE),
            attacks="natural",
            episodes=8,
            workers=0,
            progress=False,
        )
    assert wrong.summary()["cost_mean"].iloc[0] == 0
    # The returns of other arguments do not compare with those of the dataset.
    assert wrong.summary()["normalised_reward"].isna().all() == ("kwargs" in source)


def run(*arguments, shell=None):
    code = "from safer_offline.cli.main import main; main()"
    program = [sys.executable, "-c", code]
    folder = __file__.rpartition("/")[0]
    if shell is not None:
        done = subprocess.run(
            f'{sys.executable} -c "{code}" {shell}',
            shell=True,
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
        )
    else:
        done = subprocess.run(
            [*program, *map(str, arguments)],
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout
