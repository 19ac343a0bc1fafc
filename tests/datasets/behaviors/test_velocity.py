"""Runners of the velocity tasks: whose weights they are, how they do, what they leave behind."""

import dataclasses
import json

import gymnasium
import minari
import numpy as np
import pytest

from safer_offline.datasets import collect, load_dataset
from safer_offline.datasets.behaviors import behaviors_for
from safer_offline.datasets.behaviors.learned import families as learned
from safer_offline.datasets.behaviors.learned.families import packaged_actors
from safer_offline.datasets.collection.recipe import load_recipe
from safer_offline.datasets.formats.minari import to_minari
from safer_offline.environments.mujoco import require_mujoco
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import DataError, MissingSimulatorError

TASKS = ("halfcheetah-velocity", "hopper-velocity", "ant-velocity")


def _simulates():
    try:
        require_mujoco()
    except MissingSimulatorError:
        return False
    return True


simulates = pytest.mark.skipif(not _simulates(), reason="needs MuJoCo and Gymnasium 1.0")


def families_of(task):
    env_id = EnvironmentSource(name=task).env_id
    return env_id, {family.name: family for family in behaviors_for(env_id)}


@pytest.mark.parametrize("task", TASKS)
def test_a_family_tells_whose_weights_act(task):
    env_id, families = families_of(task)
    file = packaged_actors(task)
    assert file.info.env_id == env_id
    assert {family.checkpoint_sha256 for family in families.values()} == {file.sha256}


@pytest.mark.parametrize("task", TASKS)
def test_every_runner_that_a_family_names_can_be_drawn(task):
    """A step that is not in the file, or a penalty beyond the training, would fail here."""
    _, families = families_of(task)
    size = packaged_actors(task).info.observation_size
    for family in families.values():
        for seed in range(30):
            action = family.draw(np.random.default_rng(seed))(np.zeros(size, np.float32))
            assert np.isfinite(action).all()


def test_another_file_of_the_same_name_is_refused(monkeypatch):
    _, families = families_of("hopper-velocity")
    other = dataclasses.replace(packaged_actors("hopper-velocity"), sha256="0" * 64)
    monkeypatch.setattr(learned, "packaged_actors", lambda name: other)
    with pytest.raises(DataError, match="not the actor file that the package came with"):
        families["frontier"].draw(np.random.default_rng(0))


@simulates
@pytest.mark.parametrize(
    ("task", "least", "largest_cost"),
    [
        ("halfcheetah-velocity", 2300, 250),
        ("hopper-velocity", 1100, 250),
        ("ant-velocity", 2000, 250),
    ],
)
def test_the_frontier_runs_near_the_limit_and_the_cautious_keep_it(task, least, largest_cost):
    _, families = families_of(task)
    environment = EnvironmentSource(name=task).make()

    def drive(family, episode):
        act, total = family.draw(np.random.default_rng([1, episode])), np.zeros(2)
        observation, ended = environment.reset(episode), False
        while not ended:
            step = environment.step(np.array(act(observation), np.float32))
            observation, ended = step.observation, step.terminated or step.truncated
            total += step.reward, step.cost
        return total

    frontier = np.median([drive(families["frontier"], episode) for episode in range(6)], axis=0)
    cautious = np.median([drive(families["cautious"], episode) for episode in range(6)], axis=0)
    assert frontier[0] > least
    assert frontier[1] < largest_cost
    assert cautious[1] < 50  # of up to 1000


@simulates
def test_a_collected_dataset_tells_everything_and_opens_in_minari(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    recipe = dataclasses.replace(load_recipe("hopper-velocity"), transitions=60)
    collect(recipe, tmp_path / "hopper.h5", workers=1, progress=False)
    dataset = load_dataset(tmp_path / "hopper.h5")
    assert dataset.metadata.env_id == "SafetyHopperVelocity-v1"
    assert dataset.metadata.versions.keys() >= {"mujoco", "gymnasium", "numpy"}
    assert "pybullet" not in dataset.metadata.versions
    assert set(dataset.costs.tolist()) <= {0.0, 1.0}
    assert {policy.checkpoint_sha256 for policy in dataset.metadata.behavior_policies} == {
        packaged_actors("hopper-velocity").sha256
    }

    to_minari(dataset, "mujoco/hopper-velocity/mixed-v0")
    there = minari.load_dataset("mujoco/hopper-velocity/mixed-v0")
    assert sum(len(episode.rewards) for episode in there) == dataset.num_transitions
    environment = there.recover_environment()
    seed = int(dataset.infos["seed"][0])
    observation, _ = environment.reset(seed=seed)
    np.testing.assert_array_equal(observation.astype(np.float32), dataset.observations[0].numpy())
    *_, info = environment.step(dataset.actions[0].numpy())
    assert info["cost"] == dataset.costs[0]
    spec = gymnasium.envs.registration.EnvSpec.from_json(json.dumps(dataset.metadata.env_spec))
    assert spec.max_episode_steps == 1000
